"""The passes of a model over its batches: each is run once, when it is first needed, and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from torch import Tensor

from bnlib.doctor.batches import Batch
from bnlib.doctor.instrumented_model import InstrumentedModel, Pass
from bnlib.doctor.losses import own_loss
from bnlib.doctor.structures import describe
from bnlib.norm import DomainBatchNorm, use_domain

Statistics = Mapping[str, tuple[Tensor, Tensor]]
"""Mean and variance, both of shape (C,), by the name of the layer."""


class BatchPasses:
    """Run a model on given batches, and keep the passes.

    Arguments:
        instrumented: the copy of the model.
        batches: the batches to run it on.
        domain: the domain that DomainBatchNorm layers use.
    """

    def __init__(self, instrumented: InstrumentedModel, batches: Sequence[Batch], domain: object = None) -> None:
        self.instrumented, self.batches, self.domain = instrumented, batches, domain
        self._kept: dict[tuple[str, int], Pass] = {}
        self._recorded: set[tuple[str, int]] = set()
        self._has_domains = any(isinstance(module, DomainBatchNorm) for module in instrumented.model.modules())

    def kept(
        self, normalise_by: str, numbers: Iterable[int], substitutes: Statistics | None = None, record: bool = False
    ) -> list[Pass]:
        """Return the passes of some batches, by their numbers; only those that are not kept yet are run.

        Arguments:
            normalise_by: see ``InstrumentedModel``. Passes with this value are kept, so it must always come with the
                same substitutes.
            numbers: of the batches.
            substitutes, record: see ``InstrumentedModel``.
        """
        for number in numbers:
            key = normalise_by, number
            if key not in self._kept or (record and key not in self._recorded):
                self._kept[key] = self.run(number, normalise_by, substitutes, record)
                self._recorded |= {key} if record else set()
        return [self._kept[normalise_by, number] for number in numbers]

    def run(self, number: int, normalise_by: str, substitutes: Statistics | None = None, record: bool = False) -> Pass:
        """Run the model on a batch, by its number, without keeping the pass."""
        batch = self.batches[number]
        try:
            with self.domain_in_use():
                return self.instrumented(batch, normalise_by, substitutes, record)
        except Exception as error:
            if number == 0 and self.instrumented.call_is_guessed(batch):
                raise ValueError(
                    f"batches must fit the model: a batch {describe(batch.whole)} was taken to mean arguments "
                    f"{describe(batch.arguments)} and keywords {describe(batch.keywords)} of the model, which "
                    f"raised {type(error).__name__}: {error}; say how the model is called, for example "
                    'forward=lambda model, batch: model(batch["x"])'
                ) from error
            error.add_note(f"The model raised this error when diagnose called it with batch {number}.")
            error.add_note(
                f"It was called with {describe(batch.arguments)} and keywords {describe(batch.keywords)}. If "
                "you call it otherwise, pass forward=lambda model, batch: ..."
            )
            raise

    def domain_in_use(self):
        """Return a context in which DomainBatchNorm layers use the domain of these batches."""
        in_use = self._has_domains and self.domain is not None
        return use_domain(self.instrumented.model, self.domain) if in_use else nullcontext()


def with_targets_if_these_give_a_loss(instrumented: InstrumentedModel, batches: Sequence[Batch]) -> Sequence[Batch]:
    """Return batches that the model gets with their targets if only that gives a loss, as with a detector.

    The other batches are returned as they are. Modules without statistics stay in train mode where that is needed.
    """
    targets = batches[0].targets
    if not (isinstance(targets, (tuple, list)) and targets and isinstance(targets[0], Mapping)):
        return batches
    instrumented.train_other_modules()
    with_targets = [replace(each, arguments=(*each.arguments, each.targets)) for each in batches]
    try:
        found = own_loss(instrumented(with_targets[0], "eval").outputs, with_targets[0])
    except Exception:
        found = None
    if found is None:
        instrumented.model.eval()
        return batches
    return with_targets
