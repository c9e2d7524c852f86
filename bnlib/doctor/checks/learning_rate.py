"""Check of the learning rate of FullNorm: a short training of a copy, with the user's optimiser."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnlib.doctor.batches import Batch
from bnlib.doctor.layer_modes import by_formula
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding
from bnlib.norm import FullNorm

_STEPS = 12
_UNSTABLE = 2.0
"""A loss that grows by this factor within ``_STEPS`` steps; see ``unstable_rate``."""


def unstable_rate(measurements: Measurements) -> Iterator[Finding]:
    """Find an optimiser whose steps are too large for FullNorm, although they are not for batch norm.

    The estimates of FullNorm follow the weights late, so large steps are taken in a wrong direction. No formula tells
    the limit for a network, but a trial of 12 steps does. In fully connected networks on the digits with 1 to 3 layers,
    floors of alpha from 0.03 to 0.3, momentum 0 and 0.9 and rates from 0.03 to 3, 32 of 162 networks that BN trains
    failed with FullNorm (errors 5 points above BN's after 300 steps). The largest loss of the trial was more than twice
    the first one in 28 of these, and in 3 of the other 130, which recovered from losses 20 times as large and more. Of
    the four that it misses, three have momentum 0.9 and a floor of 0.3.
    """
    trial = measurements.trial
    layers = [layer for layer in measurements.norm_layers.values() if isinstance(layer, FullNorm)]
    if trial is None or not layers or not measurements.has_loss:
        return
    try:
        losses = trial.losses(measurements)
        if max(losses) < _UNSTABLE * losses[0] or not losses[0] > 0:
            return
        with_batches = trial.losses(measurements, by_batch=True)
    except Exception as error:
        why = f"a trial of the optimiser failed: {str(error).splitlines()[0]}"
        measurements.skipped["whether FullNorm is stable at the learning rate"] = why
        return
    # At a rate that is too large for batch norm, too, FullNorm is not the cause.
    if not with_batches[-1] < with_batches[0]:
        return
    rates = sorted({float(group["lr"]) for group in trial.optimiser.param_groups})
    text = (
        f"In {_STEPS} training steps of a copy, with this optimiser at the learning rate "
        f"{', '.join(f'{rate:g}' for rate in rates)}, the loss rises from {losses[0]:.3g} to {max(losses):.3g}. If "
        f"each layer normalises by the batch, as batch norm does, it falls to {with_batches[-1]:.3g}. So the estimates "
        "of FullNorm are too late for these steps."
    )
    yield make_finding("unstable-rate", "", "warning", text)


class Trial:
    """Short trainings of copies of a model.

    Arguments:
        model: the user's model.
        optimiser: of its parameters.
        call: takes a model and a batch, and returns the outputs.

    Raises:
        ValueError: the optimiser has parameters that the model does not have.
    """

    def __init__(self, model: nn.Module, optimiser: Optimizer, call: Callable[[nn.Module, Batch], object]) -> None:
        own = set(model.parameters())
        if not all(each in own for group in optimiser.param_groups for each in group["params"]):
            raise ValueError(
                "optimiser must be the optimiser of this model, got one with parameters that the model does not have"
            )
        self._model, self.optimiser, self._call = model, optimiser, call

    def losses(self, measurements: Measurements, by_batch: bool = False) -> list[float]:
        """Return the losses of a few steps of a copy.

        Arguments:
            measurements: of the model.
            by_batch: let the FullNorm layers normalise by the batch.
        """
        model = copy.deepcopy(self._model)
        batches = measurements.batches
        with torch.no_grad():
            for batch in batches[:_STEPS]:
                self._call(model, batch)
        for layer in model.modules():
            if isinstance(layer, FullNorm):
                # A training of usual length goes on with the last weight of a schedule.
                layer.alpha = float(layer.alpha(10**6)) if callable(layer.alpha) else layer.alpha
                if by_batch:
                    layer.forward = partial(by_formula, layer)
        optimiser, found = self._copy_of_optimiser(model), []
        with torch.enable_grad():
            for number in range(_STEPS):
                batch = batches[number % len(batches)]
                optimiser.zero_grad()
                loss = measurements.loss_of(self._call(model, batch), batch)
                loss.backward()
                optimiser.step()
                found.append(float(loss.detach()))
                if not torch.isfinite(loss):
                    return [*found[:-1], torch.inf]
        return found

    def _copy_of_optimiser(self, model: nn.Module) -> Optimizer:
        copies: dict[Tensor, Tensor] = dict(zip(self._model.parameters(), model.parameters(), strict=True))
        groups = [
            {**group, "params": [copies[each] for each in group["params"]]} for group in self.optimiser.param_groups
        ]
        optimiser = type(self.optimiser)(groups)
        optimiser.load_state_dict(copy.deepcopy(self.optimiser.state_dict()))
        return optimiser
