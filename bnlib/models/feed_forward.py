"""Networks of linear layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from bnlib.models.building import NormLike, as_norm, check_counts, seeded, with_norm
from bnlib.norm.batch_norm import BatchNorm


def mlp(
    sizes: Sequence[int],
    norm: NormLike = None,
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    placement: str = "before",
    init: Callable[[Tensor], object] | None = None,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build a fully connected network: linear, norm, activation for each hidden layer, then linear.

    The linear layers of two networks built from the same ``sizes`` and ``seed`` start from the same numbers
    whether or not there is a ``norm``, so that a comparison starts from the same place.

    Arguments:
        sizes: widths from the input to the output, at least two, e.g. ``(64, 100, 100, 10)``.
        norm: of each hidden layer, e.g. ``bnlib.BatchNorm`` or ``"weight_norm"``, see ``bnlib.models``; None for no
            normalisation.
        activation: class of the activation, or another callable without arguments that makes one.
        placement: ``"before"`` or ``"after"``, where the norm is with respect to the activation.
        init: fills the weights of the linear layers, such as ``nn.init.kaiming_normal_``, and their biases are 0; None
            for torch's own initialisation, with which the signal of a deep network without a norm fades.
        seed: seed of the initialisation; the global generator is left as it was.

    Shape:
        (N, \*) with ``sizes[0]`` values a sample, to (N, ``sizes[-1]``).

    Raises:
        ValueError: fewer than two sizes, another placement, or no normalisation of the name.
        TypeError: ``activation`` or ``norm`` is of another kind, or ``norm`` is not for linear layers.

    Example:
        >>> [type(layer).__name__ for layer in models.mlp((64, 100, 10), bnlib.BatchNorm)]
        ['Flatten', 'Linear', 'BatchNorm', 'ReLU', 'Linear']
        >>> plain, normed = models.mlp((64, 100, 10), seed=3), models.mlp((64, 100, 10), "layer_norm", seed=3)
        >>> torch.equal(plain[1].weight, normed[1].weight)
        True
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes must name at least an input and an output width, got {tuple(sizes)}")
    if placement not in ("before", "after"):
        raise ValueError(f"placement must be 'before' or 'after', got {placement!r}")
    if isinstance(activation, nn.Module):
        raise TypeError(f"activation must be a class or a callable without arguments that makes one, got {activation}")
    layers: list[nn.Module] = [nn.Flatten()]
    with seeded(seed):
        for fan_in, fan_out in pairwise(sizes[:-1]):
            linear, *norms = with_norm(_linear(fan_in, fan_out, init), norm, bias=True)
            active = activation()
            layers += [linear, *norms, active] if placement == "before" else [linear, active, *norms]
        layers.append(_linear(sizes[-2], sizes[-1], init))
    return nn.Sequential(*layers)


def _linear(fan_in: int, fan_out: int, init: Callable[[Tensor], object] | None) -> nn.Linear:
    linear = nn.Linear(fan_in, fan_out)
    if init is not None:
        init(linear.weight)
        nn.init.zeros_(linear.bias)
    return linear


def deep_stack(
    depth: int = 100,
    width: int = 63,
    norm: NormLike = None,
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    placement: str = "before",
    in_features: int = 50,
    num_classes: int = 50,
    init: Callable[[Tensor], object] | None = None,
    seed: int = 0,
) -> nn.Sequential:
    r"""Build an ``mlp`` of ``depth`` hidden layers of the same width.

    The feed-forward counterpart of ``lstm_stack``: with the defaults the 100 layers of 63 units of the question there,
    for one of 50 characters, one-hot, and the one that follows it. ``activation=nn.Identity`` makes it linear.

    Arguments:
        depth: number of hidden layers.
        width: of each of them.
        norm, activation, placement, init, seed: see ``mlp``.
        in_features: values of a sample.
        num_classes: number of outputs.

    Shape:
        (N, \*) with ``in_features`` values a sample, to (N, ``num_classes``).

    Raises:
        ValueError: a count below 1; and what ``mlp`` raises.

    Source: Kari, a question on Stack Exchange, March 2018.

    Example:
        >>> model = models.deep_stack(10, norm=bnlib.BatchNorm)
        >>> sum(isinstance(layer, nn.Linear) for layer in model), model(torch.eye(50)).shape
        (11, torch.Size([50, 50]))
    """
    check_counts(depth=depth, width=width, in_features=in_features, num_classes=num_classes)
    sizes = (in_features, *[width] * depth, num_classes)
    return mlp(sizes, norm, activation=activation, placement=placement, init=init, seed=seed)


def three_point_network(norm: NormLike = BatchNorm, *, seed: int = 0) -> nn.Sequential:
    """Build the network of figure 1: linear 3 to 3, norm, ReLU, linear 3 to 3, for the data set ``three_points``.

    Arguments:
        norm, seed: see ``mlp``.

    Shape:
        (N, 3) to (N, 3).

    Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), Figure 1.

    Example:
        >>> [type(layer).__name__ for layer in models.three_point_network("full_norm")]
        ['Flatten', 'Linear', 'FullNorm', 'ReLU', 'Linear']
    """
    return mlp((3, 3, 3), norm, seed=seed)


def logistic_regression(in_features: int, num_classes: int, norm: NormLike = None, *, seed: int = 0) -> nn.Sequential:
    r"""Build logistic regression, with the features normalised first.

    The norm comes before the weights, as in the paper's equation (1), and there is nothing else for it to come
    between. Those that change the layer itself (weight norm, weight standardisation, cosine normalisation) do so.

    Arguments:
        in_features: values of a sample.
        num_classes: number of outputs.
        norm: of the features, see ``bnlib.models``; None for none.
        seed: seed of the initialisation; the global generator is left as it was.

    Shape:
        (N, \*) with ``in_features`` values a sample, to (N, ``num_classes``).

    Raises:
        ValueError: a count below 1, or no normalisation of the name.
        TypeError: ``norm`` is of another kind, or not for linear layers.

    Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), Figure 3 and equation (1).

    Example:
        >>> [type(layer).__name__ for layer in models.logistic_regression(5, 3, bnlib.BatchNorm)]
        ['Flatten', 'BatchNorm', 'Linear']
    """
    check_counts(in_features=in_features, num_classes=num_classes)
    with seeded(seed):
        linear = nn.Linear(in_features, num_classes)
        make = as_norm(norm).make_layer
        layers = with_norm(linear, norm, bias=True) if make is None else [make(in_features), linear]
    return nn.Sequential(nn.Flatten(), *layers)
