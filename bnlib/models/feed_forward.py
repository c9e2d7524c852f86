"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from bnlib.arguments import check_integer, check_one_of, shown
from bnlib.models.building import NormLike, activation_behind, as_norm, check_counts, seeded, with_norm
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
    r"""Build a fully connected network: linear, normalisation, activation for each hidden layer, then linear.

    Two networks with the same ``sizes`` and ``seed`` get the same initial weights, with or without a normalisation, so
    that they can be compared.

    Arguments:
        sizes: widths from the input to the output, at least two, e.g. ``(64, 100, 100, 10)``.
        norm: normalisation of each hidden layer, e.g. ``bnlib.BatchNorm`` or ``"weight_norm"``, see ``bnlib.models``;
            None for no normalisation.
        activation: class of the activation, or another callable without arguments that returns one. A normalisation
            that contains its own activation takes its place.
        placement: ``"before"`` or ``"after"``: the normalisation comes before or after the activation.
        init: function that fills the weights of a linear layer in place, such as ``nn.init.kaiming_normal_``; the
            biases are then 0. None for PyTorch's default initialisation, with which the activations of a deep network
            without normalisation shrink from layer to layer.
        seed: seed of the initialisation; the global generator does not change.

    Shape:
        Input (N, \*) with ``sizes[0]`` values per sample; output (N, ``sizes[-1]``).

    Raises:
        ValueError: if there are fewer than two sizes, or ``placement`` or the name ``norm`` is unknown.
        TypeError: if ``activation`` or ``norm`` has another type, or ``norm`` cannot be applied to linear layers.

    Example:
        >>> [type(layer).__name__ for layer in models.mlp((64, 100, 10), bnlib.BatchNorm)]
        ['Flatten', 'Linear', 'BatchNorm', 'ReLU', 'Linear']
        >>> plain, normed = models.mlp((64, 100, 10), seed=3), models.mlp((64, 100, 10), "layer_norm", seed=3)
        >>> torch.equal(plain[1].weight, normed[1].weight)
        True
    """
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise TypeError(f"sizes must be a sequence of widths, such as (64, 100, 10), got {shown(sizes)}")
    if len(sizes) < 2:
        raise ValueError(f"sizes must have at least an input and an output width, got {tuple(sizes)}")
    for size in sizes:
        check_integer("sizes", size)
    check_one_of("placement", placement, ("before", "after"))
    if isinstance(activation, nn.Module) or not callable(activation):
        raise TypeError(
            f"activation must be a class or a callable without arguments that returns a layer, got {activation}; pass "
            "the class, e.g. nn.ReLU"
        )
    layers: list[nn.Module] = [nn.Flatten()]
    with seeded(seed):
        for fan_in, fan_out in pairwise(sizes[:-1]):
            linear, *norms = with_norm(_linear(fan_in, fan_out, init), norm, bias=True)
            active = activation() if placement == "after" else activation_behind(norm, activation)
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

    It is the feed-forward counterpart of ``lstm_stack``. The defaults are those of a question about deep stacks: 100
    layers of 63 units that predict the next of 50 characters from a one-hot character. With
    ``activation=nn.Identity`` the network is linear.

    Arguments:
        depth: number of hidden layers.
        width: width of each hidden layer.
        norm, activation, placement, init, seed: see ``mlp``.
        in_features: number of values per sample.
        num_classes: number of outputs.

    Shape:
        Input (N, \*) with ``in_features`` values per sample; output (N, ``num_classes``).

    Raises:
        ValueError: if a count is below 1; and the errors of ``mlp``.

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
    """Build the network of figure 1 of Lian and Liu (2019): linear 3 to 3, normalisation, ReLU, linear 3 to 3.

    It is used with the data set ``three_points``.

    Arguments:
        norm, seed: see ``mlp``.

    Shape:
        Input (N, 3); output (N, 3).

    Source: Lian and Liu 2019 (https://proceedings.mlr.press/v89/lian19a.html), Figure 1.

    Example:
        >>> [type(layer).__name__ for layer in models.three_point_network("full_norm")]
        ['Flatten', 'Linear', 'FullNorm', 'ReLU', 'Linear']
    """
    return mlp((3, 3, 3), norm, seed=seed)


def logistic_regression(in_features: int, num_classes: int, norm: NormLike = None, *, seed: int = 0) -> nn.Sequential:
    r"""Build a logistic regression on normalised features.

    The normalisation comes before the linear layer, as in equation (1) of Lian and Liu (2019). A normalisation that
    changes the layer itself (weight norm, weight standardisation, cosine normalisation) is applied to the linear layer.

    Arguments:
        in_features: number of values per sample.
        num_classes: number of outputs.
        norm: normalisation of the features, see ``bnlib.models``; None for no normalisation.
        seed: seed of the initialisation; the global generator does not change.

    Shape:
        Input (N, \*) with ``in_features`` values per sample; output (N, ``num_classes``).

    Raises:
        ValueError: if a count is below 1, or the name ``norm`` is unknown.
        TypeError: if ``norm`` has another type, or cannot be applied to linear layers.

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
