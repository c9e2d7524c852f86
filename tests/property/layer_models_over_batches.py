"""The models of the layers whose statistics are averages over several batches; see ``layer_models``."""

import numpy as np
from layer_models import Model, over, wide


class ModelOverBatches(Model):
    """What the two layers have in common whose backward pass has statistics of its own.

    A gradient uses these as they were in the forward pass. They move from where they are; several backward passes
    through one forward pass leave the average of what each would have made of the values in the forward pass.
    """

    backward_state = ()

    def recompute(self, x):
        pass

    def snapshot(self):
        return [self[name].copy() for name in self.backward_state]

    def moved(self, context, moved_from):
        """Move the statistics; ``moved_from`` takes and returns their values."""
        now = self.snapshot()
        moved = moved_from(*(context["before"] if context["earlier"] else now))
        for name, old, new in zip(self.backward_state, now, moved, strict=True):
            self.move(name, old + (new - old) / (context["earlier"] + 1))
        context["earlier"] += 1


class MovingAverageModel(ModelOverBatches):
    """Yan et al. 2020, with windows of 2 batches and a limit of 1.5."""

    eps, momentum, window, r_max = 1e-5, 0.3, 2, 1.5
    backward_state = ("recent_gradient_means",)

    def forward(self, x, training):
        context = {"before": self.snapshot(), "earlier": 0, "training": training, "weight": self["weight"].copy()}
        root_of_running = np.sqrt(self["running_mean_square"] + self.eps)
        if training:
            own = (x**2).mean(over(x))
            self.move("recent_mean_squares", np.concatenate((self["recent_mean_squares"][:, 1:], own[:, None]), 1))
            averaged = self["num_batches_tracked"] >= self.window
            square = self["recent_mean_squares"].mean(1) if averaged else own
            root = np.sqrt(square + self.eps)
            rho = np.clip(root / root_of_running, 1 / self.r_max, self.r_max)
            self.move("running_mean_square", self["running_mean_square"] * 0.7 + square * 0.3)
            self.move("num_batches_tracked", self["num_batches_tracked"] + 1)
        else:
            root, rho, averaged = root_of_running, np.ones(4), False
        z = x / wide(root, x)
        context |= {"z": z, "root": root, "rho": rho, "averaged": averaged}
        return wide(self["weight"] * rho, x) * z + wide(self["bias"], x), [x, context]

    def backward(self, context, g):
        x, kept = context
        z, rho = kept["z"], kept["rho"]
        h = g * wide(kept["weight"] * rho, g)
        if kept["training"]:
            own = (h * z).mean(over(x))
            push = lambda recent: np.concatenate((recent[:, 1:], own[:, None]), 1)  # noqa: E731
            h = h - z * wide(push(*kept["before"]).mean(1) if kept["averaged"] else own, g)
            self.moved(kept, lambda recent: [push(recent)])
        return h / wide(kept["root"], g), (g * wide(rho, g) * z).sum(over(g)), g.sum(over(g))


class OnlineModel(ModelOverBatches):
    """Chiley et al. 2019, sample by sample, with decays of 0.9 and 0.95, and layer scaling."""

    forward_decay, backward_decay = 0.9, 0.95
    backward_state = ("output_control", "mean_control")

    def forward(self, x, training):
        context = {"before": self.snapshot(), "earlier": 0, "training": training, "weight": self["weight"].copy()}
        deviations, outputs = [], []
        for sample in x:
            rows, mean, variance = sample.reshape(4, -1), self["running_mean"], self["running_var"]
            deviations.append(np.sqrt(variance + self.eps))
            outputs.append(((rows - mean[:, None]) / deviations[-1][:, None]).reshape(sample.shape))
            if training:
                a, difference = self.forward_decay, rows.mean(1) - mean
                self.move("running_mean", a * mean + (1 - a) * rows.mean(1))
                self.move("running_var", a * variance + (1 - a) * (rows.var(1) + a * difference**2))
        if training:
            self.move("num_batches_tracked", self["num_batches_tracked"] + 1)
        normalised = np.array(outputs)
        u = wide(self["weight"], x) * normalised + wide(self["bias"], x)
        scale = ((u**2).mean(tuple(range(1, x.ndim)), keepdims=True) + self.eps) ** -0.5
        context |= {"normalised": normalised, "deviations": deviations, "u": u, "scale": scale}
        return u * scale, [x, context]

    def backward(self, context, g):
        x, kept = context
        u, scale, normalised = kept["u"], kept["scale"], kept["normalised"]
        along = (g * u).mean(tuple(range(1, x.ndim)), keepdims=True)
        h = g * scale - u * scale**3 * along
        of_weight, of_bias = (h * normalised).sum(over(g)), h.sum(over(g))
        h = h * wide(kept["weight"], g)
        if kept["training"]:
            grad, _ = self.controlled(kept, h, *kept["before"])
            self.moved(kept, lambda *state: self.controlled(kept, h, *state)[1])
        else:
            grad = h / wide(kept["deviations"][0], h)
        return grad, of_weight, of_bias

    def controlled(self, kept, h, along_output, along_ones):
        """The gradient, sample by sample, and what becomes of the two accumulators."""
        rest, grads = 1 - self.backward_decay, []
        for sample, y, deviation in zip(h, kept["normalised"], kept["deviations"], strict=True):
            rows, y_rows = sample.reshape(4, -1), y.reshape(4, -1)
            rows = rows - rest * along_output[:, None] * y_rows
            along_output = along_output + (rows * y_rows).mean(1)
            rows = rows / deviation[:, None] - rest * along_ones[:, None]
            along_ones = along_ones + rows.mean(1)
            grads.append(rows.reshape(sample.shape))
        return np.array(grads), (along_output, along_ones)


class CrossIterationModel(Model):
    """Yao et al. 2021, for a linear layer and windows of 3 batches, with mean squares as the paper has them."""

    momentum, window = 0.3, 3

    def recompute(self, x):
        pass

    def forward(self, x, training):
        weights = self["layer.weight"]
        product = x @ weights.T + self["layer.bias"]
        if not training:
            y, context = self.normalised_by(product, self["running_mean"], self["running_var"] + self.eps, None)
            return y, [x, context, weights.copy(), 1, None]
        own, count = product - self["layer.bias"], int(self["num_batches_tracked"])
        means, squares = [own.mean(0)], [(own**2).mean(0)]
        earlier = [self[f"recent_{name}"] for name in ("inputs", "products", "vars", "slopes")]
        for inputs, old_mean, old_variance, slope in list(zip(*earlier, strict=True))[::-1][:count]:
            means.append(weights @ inputs[0])
            old_square = old_variance + old_mean**2
            # The derivative of the mean square; it is homogeneous in the weights, so at the old ones it gives twice it.
            square_slope = slope + 2 * old_mean[:, None] * inputs
            squares.append(np.maximum((square_slope * weights).sum(1) - old_square, means[-1] ** 2))
        mean = np.mean(means, 0)
        variance = np.mean(squares, 0) - mean**2
        y, context = self.normalised_by(product, mean + self["layer.bias"], variance + self.eps, None)
        slopes = 2 * (own - own.mean(0)).T @ x / len(x)
        for name, new in zip(("inputs", "products", "vars", "slopes"),
                             (x.mean(0)[None], own.mean(0), own.var(0), slopes), strict=True):  # fmt: skip
            old = self[f"recent_{name}"]
            self.move(f"recent_{name}", np.concatenate((old[1:], new[None])))
        self.move("running_mean", self["running_mean"] * 0.7 + (mean + self["layer.bias"]) * 0.3)
        self.move("running_var", self["running_var"] * 0.7 + variance * 0.3)
        self.move("num_batches_tracked", self["num_batches_tracked"] + 1)
        return y, [x, context, weights.copy(), len(means), True]

    def backward(self, context, g):
        x, (_, normalised, corrected, sigma, _, _, weight), weights, batches, training = context
        h = g * weight
        if training:
            h = h - (h.mean(0) + normalised * (h * normalised).mean(0)) / batches
        h = h / sigma
        of_layer_bias = 0 * h[0] if training else h.sum(0)  # in train mode it cancels
        return h @ weights, (g * corrected).sum(0), g.sum(0), h.T @ x, of_layer_bias
