"""What is known of the steps of PyTorch's optimisers: whether models can be trained as one, and at different rates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import optim
from torch.optim import SGD, Optimizer

OptimiserMaker = Callable[..., Optimizer]
"""Takes the parameters and ``lr=``, and returns an optimiser."""

_PROPORTIONAL_TO_RATE = (SGD, *(optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax))
_PROPORTIONAL_TO_RATE += (optim.RMSprop, optim.Adagrad, optim.Adadelta)
_ELEMENTWISE = (*_PROPORTIONAL_TO_RATE, optim.ASGD, optim.Rprop)


def class_of(optimiser: OptimiserMaker) -> OptimiserMaker:
    """Return the class of an optimiser, or the function that makes it, without the arguments of a ``partial``.

    Example:
        >>> training.optimisers.class_of(partial(torch.optim.SGD, momentum=0.9))
        <class 'torch.optim.sgd.SGD'>
    """
    return optimiser.func if isinstance(optimiser, partial) else optimiser


def step_is_elementwise(optimiser: OptimiserMaker) -> bool:
    """Return whether an optimiser of PyTorch moves each weight by what it knows of this weight alone.

    Then the weights of several models can be stacked. Adafactor and Muon look at whole matrices. Of an optimiser that
    is not PyTorch's own, nothing is known, and the answer is False.

    Example:
        >>> [training.step_is_elementwise(each) for each in (torch.optim.Adam, torch.optim.Adafactor)]
        [True, False]
    """
    return class_of(optimiser) in _ELEMENTWISE


def step_is_proportional_to_gradient(optimiser: OptimiserMaker) -> bool:
    """Return whether an optimiser's step is proportional to the gradient, as for SGD without weight decay.

    Scaling the gradients is then the same as scaling the learning rate.

    Example:
        >>> [training.step_is_proportional_to_gradient(each) for each in (torch.optim.SGD, torch.optim.Adam)]
        [True, False]
    """
    decays = isinstance(optimiser, partial) and optimiser.keywords.get("weight_decay")
    return class_of(optimiser) is SGD and not decays


def step_is_proportional_to_rate(optimiser: OptimiserMaker) -> bool:
    """Return whether a step is the learning rate times what depends on the weights and the gradients so far only.

    That holds for SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad and Adadelta, also with weight decay. Rprop
    and ASGD keep step sizes of their own, and Adafactor has an upper bound for the rate.

    Example:
        >>> [training.step_is_proportional_to_rate(each) for each in (torch.optim.Adam, torch.optim.Rprop)]
        [True, False]
    """
    return class_of(optimiser) in _PROPORTIONAL_TO_RATE
