"""What the layers do, once more: in NumPy and float64, from the papers' formulas, for the tests of random sequences.

A model has the arrays that the layer has as parameters and buffers. ``forward`` returns the output and a context, and
``backward`` takes the context and a gradient g at the output, and returns the gradients of input, weight and bias,
and of other parameters behind them.
"""

import numpy as np


def over(x):
    return (0, *range(2, x.ndim))


def wide(values, x):
    return np.reshape(values, (-1, *[1] * (x.ndim - 2)))


class Model:
    """Batch norm, and what all models have."""

    eps, momentum = 1e-5, 0.1

    def __init__(self, state):
        self.load(state)

    def state(self):
        return {name: value.copy() for name, value in self.arrays.items()}

    def load(self, state):
        self.arrays = {name: np.array(value, dtype=np.float64) for name, value in state.items()}

    def __getitem__(self, name):
        return self.arrays[name]

    def move(self, name, value):
        self.arrays[name] = np.asarray(value, dtype=np.float64)

    def forward(self, x, training):
        if not training:
            return self.normalised_by(x, self["running_mean"], self["running_var"] + self.eps, None)
        mean, variance, count = x.mean(over(x)), x.var(over(x)), x.size // x.shape[1]
        output = self.normalised_by(x, mean, variance + self.eps, count)
        self.track(mean, variance, count)
        return output

    def track(self, mean, variance, count):
        self.move("running_mean", self["running_mean"] + self.momentum * (mean - self["running_mean"]))
        if count > 1:
            unbiased = variance * count / (count - 1)
            self.move("running_var", self["running_var"] + self.momentum * (unbiased - self["running_var"]))
        self.move("num_batches_tracked", self["num_batches_tracked"] + 1)

    def recompute(self, x):
        """The second pass of a checkpoint, which batch norm does not recognise."""
        self.forward(x, True)

    def normalised_by(self, x, mean, square, count, rho=1.0, delta=0.0):
        """``count`` is None where mean and square do not depend on x."""
        normalised = (x - wide(mean, x)) / np.sqrt(wide(square, x))
        corrected = normalised * wide(rho, x) + wide(delta, x)
        y = corrected * wide(self["weight"], x) + wide(self["bias"], x)
        return y, [x, normalised, corrected, np.sqrt(square), count, rho, self["weight"].copy()]

    def backward(self, context, g):
        x, normalised, corrected, sigma, count, rho, weight = context[:7]
        h = g * wide(weight * rho, g)
        if count is not None:
            h = h - h.mean(over(h), keepdims=True) - normalised * (h * normalised).mean(over(h), keepdims=True)
        return h / wide(sigma, x), (g * corrected).sum(over(g)), g.sum(over(g))


class BatchRenormModel(Model):
    """Ioffe 2017, Algorithm 1, with limits that grow in steps 2 to 6."""

    momentum = 0.3

    def forward(self, x, training):
        if not training:
            return super().forward(x, training)
        done = min(max((float(self["num_batches_tracked"]) - 2) / 4, 0), 1)
        r_max, d_max = 1 + 2 * done, 2 * done
        mean, sigma = x.mean(over(x)), np.sqrt(x.var(over(x)) + self.eps)
        mean_r, sigma_r = self["running_mean"], np.sqrt(self["running_var"] + self.eps)
        rho, delta = np.clip(sigma / sigma_r, 1 / r_max, r_max), np.clip((mean - mean_r) / sigma_r, -d_max, d_max)
        output = self.normalised_by(x, mean, sigma**2, x.size // x.shape[1], rho, delta)
        self.move("running_mean", mean_r + self.momentum * (mean - mean_r))
        self.move("running_var", np.maximum((sigma_r + self.momentum * (sigma - sigma_r)) ** 2 - self.eps, 0))
        self.move("num_batches_tracked", self["num_batches_tracked"] + 1)
        return output

    def recompute(self, x):
        pass


class FullNormModel(Model):
    """Lian and Liu 2019, Algorithm 3, with alpha = 0.2."""

    oracle, alpha = "running", 0.2

    def forward(self, x, training):
        if training:
            mean, variance, old = x.mean(over(x)), x.var(over(x)), self["running_mean"]
            nu = (1 - self.alpha) * (self["running_var"] + old**2) + self.alpha * (variance + mean**2)
            self.move("running_mean", (1 - self.alpha) * old + self.alpha * mean)
            self.move("running_var", nu - self["running_mean"] ** 2)
            self.move("num_batches_tracked", self["num_batches_tracked"] + 1)
        square = np.maximum(self["running_var"], self.eps)
        y, context = self.normalised_by(x, self["running_mean"], square, None)
        sums = self["running_grad_weight"].copy(), self["running_grad_bias"].copy()
        return y, [*context, training, sums, self["running_var"] > self.eps, 0]

    def backward(self, context, g):
        x, normalised, *_, sigma, _, _, weight, training, before, free, earlier = context[:11]
        sums = (g * normalised).sum(over(g)), g.sum(over(g))
        along = {"running": before, "batch": sums, "constant": (0 * sums[0], 0 * sums[1])}[self.oracle]
        count = x.size // x.shape[1]
        h = g - (wide(along[1], g) + normalised * wide(along[0] * free, g)) / count if training else g
        if training and self.oracle == "running":
            for name, new, old in zip(("running_grad_weight", "running_grad_bias"), sums, before, strict=True):
                start = old if earlier else self[name]
                moved = start + self.alpha * (new - start)
                self.move(name, self[name] + (moved - self[name]) / (earlier + 1))
            context[10] += 1
        return h * wide(weight / sigma, g), *sums

    def recompute(self, x):
        pass


class NoisyModel(Model):
    """Batch norm with the noise of a step behind it; ``draw`` is the layer's own random numbers."""

    draw = None

    def forward(self, x, training):
        step = int(self["num_batches_tracked"])
        y, context = super().forward(x, training)
        factor = offset = None
        if training:
            factor, offset = (np.asarray(each, dtype=np.float64) for each in self.draw(x.shape[:2], step))
            view = *x.shape[:2], *[1] * (x.ndim - 2)
            factor = factor.reshape(view)
            y = y * factor + offset.reshape(view)
        return y, [*context, factor]

    def backward(self, context, g):
        return super().backward(context, g if context[7] is None else g * context[7])

    def recompute(self, x):
        pass
