"""Problems with nested expectations whose gradients are known exactly, on which ``convergence_rates`` is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bnlib.mcsgd import Batch, Composition, Params, Stage


@dataclass(frozen=True)
class Problem:
    """A composition whose expectations are means over a few samples, with a dimension of independent copies.

    Values have the shape (b, copies, ...) and statistics (copies, k). The loss is the sum over copies, so each copy has
    the gradient that it would have alone.

    Attributes:
        composition: to be minimised.
        x, target: all samples, (n, 1, d) and (n, 1).
        start: draws the initial parameters of a number of copies.
        scale: factor of the learning rate, $1/(2L_g)$ where $L_g$ is known.
    """

    composition: Composition
    x: Tensor
    target: Tensor
    start: Callable[[int, torch.Generator], Params]
    scale: float

    def batches(self, copies: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches of one sample without end, with a different sample for each copy."""
        while True:
            index = torch.randint(len(self.x), (1, copies), generator=generator)
            yield self.x[index, 0], self.target[index, 0]

    def squared_gradients(self, params: Params) -> Tensor:
        """Return the squared norm of the exact gradient of each copy, (copies,)."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        value = self.composition.value(leaves, (self.x, self.target))
        found = torch.autograd.grad(value, list(leaves.values()))
        return torch.stack([each.square().flatten(1).sum(1) for each in found]).sum(0)

    def squared_errors(self, params: Params, estimates: Sequence[Tensor]) -> Tensor:
        r"""Return $\|\hat y_i-E\,e_i(w;\xi)\|^2$ for each stage and copy, (stages, copies), with exact expectations."""
        with torch.no_grad():
            pairs = zip(self.composition.statistics(params, self.x), estimates, strict=True)
            return torch.stack([(exact - estimate).square().sum(1) for exact, estimate in pairs])


def quadratic() -> Problem:
    r"""Build $J(w)=E\,\frac12(c\,E[aw]-t)^2$ over samples (a, c, t)."""
    samples = torch.tensor([[1.0, 2.0, 3.0], [3.0, -1.0, 1.0], [2.0, 0.5, -2.0], [-1.0, 1.5, 2.0]]).double()
    a, c, _ = samples.T
    stage = Stage(
        apply=lambda params, z, y: z[..., 1:2] * y,
        statistic=lambda params, z: z[..., :1] * params["w"],
        start=torch.zeros(1).double(),
    )
    lipschitz = (c.square().mean() * a.mean()).square().item()
    composition = Composition([stage], lambda params, z, t: (z[..., 0] - t).square().sum(1) / 2)
    scale = 1 / (2 * lipschitz)
    return Problem(composition, samples[:, None, :2], samples[:, None, 2], _normal_start(w=(1,)), scale)


def logistic(start: float = 0.0) -> Problem:
    r"""Build $J(w)=\log(1+e^y)-0.2\,y$ with $y=E[w+a]$, which satisfies every assumption of the theory.

    If $w$ starts far from the minimum, the gradient stays the same for the whole run, as in the worst case of Lemma 1.

    Arguments:
        start: mean of the initial parameters.
    """
    stage = Stage(
        apply=lambda params, z, y: z * 0 + y,
        statistic=lambda params, z: z + params["w"],
        start=torch.full((1,), start).double(),
    )
    composition = Composition(
        [stage], lambda params, z, t: (torch.nn.functional.softplus(z[..., 0]) - t * z[..., 0]).sum(1)
    )
    a = torch.tensor([-2.0, 2.0]).double().view(2, 1, 1)
    # The derivative of the logistic function is at most 1/4, so L_g = 1/16.
    return Problem(composition, a, torch.full((2, 1), 0.2).double(), _normal_start(start, w=(1,)), scale=8)


def tail() -> Problem:
    r"""Build $J(w)=(1+y^2)^{-1/4}$ with $y=E[w+a]$, whose flat tail makes gradient descent slow."""
    stage = Stage(
        apply=lambda params, z, y: z * 0 + y,
        statistic=lambda params, z: z + params["w"],
        start=torch.full((1,), 1.0).double(),
    )
    composition = Composition([stage], lambda params, z, t: (1 + z[..., 0].square()).pow(-0.25).sum(1))
    a = torch.tensor([-0.3, 0.3]).double().view(2, 1, 1)
    # The second derivative is at most 1/2 in size, at y = 0, so L_g = 1/4.
    return Problem(composition, a, torch.zeros(2, 1).double(), _normal_start(2.0, w=(1,)), scale=2)


def network() -> Problem:
    """Build a regression by a network with two layers that normalise with the statistics of the data set.

    Three expectations are nested: the statistics of two channels, those of one channel, and the loss.
    """
    eps = 1.0  # keeps the derivatives bounded, which the theory assumes

    def normalised(h: Tensor, y: Tensor) -> Tensor:
        mean, square = y.chunk(2, -1)
        return torch.tanh((h - mean) / (square - mean.square() + eps).sqrt())

    def first(params, z):
        return (z[..., None, :] * params["u"]).sum(-1)

    def second(params, z):
        return (z * params["v"]).sum(-1, keepdim=True)

    def moments(h):
        return torch.cat((h, h.square()), -1)

    stages = [
        Stage(
            lambda params, z, y, layer=layer: normalised(layer(params, z), y),
            lambda params, z, layer=layer: moments(layer(params, z)),
            torch.cat((torch.zeros(width), torch.ones(width))).double(),
        )
        for layer, width in ((first, 2), (second, 1))
    ]
    composition = Composition(stages, lambda params, z, t: (z * params["w"] - t[..., None]).square().sum((1, 2)) / 2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 1, 2, generator=generator).double()
    target = (x[..., 0] * x[..., 1]).sign() + x[..., 0] / 2
    return Problem(composition, x, target, _normal_start(u=(2, 2), v=(2,), w=(1,)), scale=1)


def _normal_start(mean: float = 0.0, **shapes: tuple) -> Callable[[int, torch.Generator], Params]:
    """Return a function that draws parameters of these shapes from a normal distribution around ``mean``."""
    return lambda copies, generator: {
        name: mean + torch.randn(copies, *shape, generator=generator).double() for name, shape in shapes.items()
    }


FAR_START = 2000.0
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "quadratic": quadratic,
    "network": network,
    "logistic": logistic,
    "logistic, far start": lambda: logistic(FAR_START),
    "tail": tail,
}
