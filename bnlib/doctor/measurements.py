"""What the checks need to know of a model on batches, each measured once, when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from bnlib.doctor.batch_passes import BatchPasses, Statistics, with_targets_if_these_give_a_loss
from bnlib.doctor.batches import Batch
from bnlib.doctor.constant_signals import dead_channels, layers_that_end_the_signal
from bnlib.doctor.instrumented_model import InstrumentedModel, Pass
from bnlib.doctor.layer_statistics import MISMATCH, PooledStatistics, distance, pool_statistics
from bnlib.doctor.loss_gaps import gaps_are_clear, losses_agree
from bnlib.doctor.losses import (
    BatchScore,
    Loss,
    Score,
    batch_loss,
    batch_score,
    constant_output_loss,
    main_output,
)
from bnlib.doctor.norm_layers import CORRECTED_IN_TRAIN_MODE, running_statistics
from bnlib.doctor.report import Finding
from bnlib.doctor.reshuffled_batches import reshuffled_batches, why_not_reshuffled
from bnlib.doctor.structures import describe

_ASKED_FIRST, _ENOUGH_SAMPLES = 4, 64
"""Number of batches that are asked first whether a further look is needed; and samples enough for statistics."""

_MODES = {"train": "train", "eval": "eval", "recomputed": "substitute"}
"""What the norm layers normalise by in each mode, see ``InstrumentedModel``."""


class Measurements:
    """All measurements of one model on given batches.

    Arguments:
        instrumented: the copy of the model.
        batches: the batches to run it on.
        loss: see ``diagnose``.
        inference: see ``diagnose``.
        domain: the domain that DomainBatchNorm layers use.
        record: record what the norm layers get; without it only outputs and losses are known.

    Attributes:
        will_be_trained: whether the user's model is in train mode and not meant for inference.
        by_domain: the measurements on the batches of each domain, by its name.
        skipped: what could not be checked, with the reason.
        loader: what the user passed as batches; None for other batches.
        trial: trains copies of the model for a few steps; None without an optimiser.
        compares_all: compare the modes on all batches, even if a few decide.
    """

    def __init__(
        self,
        instrumented: InstrumentedModel,
        batches: Sequence[Batch],
        loss: Loss | None,
        inference: bool,
        domain: object = None,
        record: bool = True,
    ) -> None:
        self.instrumented, self.batches, self.inference = instrumented, batches, inference
        self.will_be_trained, self.by_domain, self.loader, self.trial = False, {}, None, None
        self.skipped: dict[str, str] = {}
        self.compares_all = False
        self._loss, self._domain, self._record = loss, domain, record
        self._findings: dict[Callable, tuple[Finding, ...]] = {}
        self._scores: dict[tuple[str, int], BatchScore | None] = {}
        if domain is None and loss is None:
            self.batches = with_targets_if_these_give_a_loss(instrumented, batches)
        self._run = BatchPasses(instrumented, self.batches, domain)
        self.domain_in_use = self._run.domain_in_use

    def on_batches(self, batches: Sequence[Batch], domain: object, record: bool = True) -> Measurements:
        """Return measurements of the same model on other batches."""
        return Measurements(self.instrumented, batches, self._loss, self.inference, domain, record)

    def findings(self, check: Callable[[Measurements], Iterable[Finding]]) -> tuple[Finding, ...]:
        """Return what a check finds; it runs once, whoever asks."""
        if check not in self._findings:
            self._findings[check] = tuple(check(self))
        return self._findings[check]

    @cached_property
    def passes_by_batch(self) -> list[Pass]:
        """A pass for each batch in which each norm layer normalises by the statistics of the batch."""
        return self._run.kept("batch", self._all, record=self._record)

    @cached_property
    def statistics(self) -> dict[str, PooledStatistics]:
        """The statistics of each called layer's input if the layers below normalise by the batch."""
        return self._statistics(self.passes_by_batch)

    @cached_property
    def statistics_in_eval(self) -> dict[str, PooledStatistics]:
        """The statistics of each called layer's input if the layers below normalise by their running statistics.

        They are those of a few batches, if these have enough samples.
        """
        first = self.compared if self.has_loss else self.few[::2]
        enough = (numbers for numbers in (first, self.few, self._all) if self._samples(numbers) >= _ENOUGH_SAMPLES)
        return self._statistics(self._run.kept("eval", next(enough, self._all), record=True))

    def _samples(self, numbers: Sequence[int]) -> int:
        return sum(self.batches[number].size or _ENOUGH_SAMPLES for number in numbers)

    @cached_property
    def has_loss(self) -> bool:
        """Whether a loss is known."""
        return all(each is not None for each in self._batch_scores("batch", self._all))

    @property
    def compared(self) -> tuple[int, ...]:
        """The numbers of the batches on which the modes are compared: a few, spread over all, if these decide."""
        return self._all if self.compares_all else self._decided[0]

    @property
    def train_score(self) -> Score | None:
        """The losses in train mode on the ``compared`` batches; None if no loss is known."""
        return self._score("train", self.compared) if self.has_loss else None

    @property
    def eval_score(self) -> Score | None:
        """The losses in eval mode."""
        return self._score("eval", self.compared) if self.has_loss else None

    @property
    def eval_recomputed_score(self) -> Score | None:
        """The losses in eval mode with running statistics recomputed from all batches."""
        return self._score("recomputed", self.compared) if self.has_loss else None

    def score_with_statistics(self, statistics: Statistics) -> Score:
        """Return the losses in eval mode with other statistics in some layers, by their names; there must be a loss."""
        passes = [self.pass_with_statistics(number, statistics) for number in self.compared]
        return Score.of(
            batch_score(self._loss, each.outputs, self.batches[number])
            for each, number in zip(passes, self.compared, strict=True)
        )

    @cached_property
    def precise_statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The mean and the variance of each called layer's input, by its name: what the running statistics estimate."""
        return {name: (each.mean, each.total_variance) for name, each in self.statistics.items()}

    def loss_with_precise_statistics(self, names: Collection[str], number: int) -> float:
        """Return the loss of one batch in eval mode if some layers have precise statistics.

        Arguments:
            names: these layers; the others use their running statistics.
            number: of the batch.
        """
        some = {name: each for name, each in self.precise_statistics.items() if name in names}
        return float(batch_loss(self._loss, self.pass_with_statistics(number, some).outputs, self.batches[number]))

    def loss_of(self, outputs: object, batch: Batch) -> Tensor:
        """Return the loss of outputs for a batch; there must be a loss."""
        return batch_loss(self._loss, outputs, batch)

    def pass_with_statistics(self, number: int, statistics: Statistics) -> Pass:
        """Return a pass of a batch in eval mode with other statistics in some layers, by their names."""
        return self._run.run(number, "substitute", statistics)

    def outputs_with_and_without_precise_statistics(self, numbers: Sequence[int]) -> list[tuple[object, object]]:
        """Return, for some batches, the outputs in eval mode and those with recomputed statistics."""
        in_eval, recomputed = self._passes("eval", numbers), self._passes("recomputed", numbers)
        return [(one.outputs, other.outputs) for one, other in zip(in_eval, recomputed, strict=True)]

    @property
    def scores_by_mode(self) -> dict[str, Score | None]:
        """The four scores that ``losses_by_mode`` returns, on all batches."""
        self.compares_all = True
        return {
            "train": self.train_score,
            "train_reshuffled": None if self.reshuffled is None else self.reshuffled.train_score,
            "eval_recomputed": self.eval_recomputed_score,
            "eval": self.eval_score,
        }

    @property
    def eval_worse_than_train(self) -> bool:
        """Whether the loss in eval mode is clearly larger than the loss in train mode."""
        return self._losses_differ and self.clearly_worse(self.eval_score, self.train_score)

    @property
    def eval_worse_than_recomputed(self) -> bool:
        """Whether statistics recomputed from these batches clearly lower the loss in eval mode."""
        return self._losses_differ and self.clearly_worse(self.eval_score, self.eval_recomputed_score)

    @property
    def recomputed_worse_than_train(self) -> bool:
        """Whether the loss is clearly larger than in train mode even with recomputed statistics."""
        return self._losses_differ and self.clearly_worse(self.eval_recomputed_score, self.train_score)

    @property
    def recomputed_worse_than_eval(self) -> bool:
        """Whether statistics recomputed from these batches clearly raise the loss in eval mode."""
        return self._losses_differ and self.clearly_worse(self.eval_recomputed_score, self.eval_score)

    @property
    def _losses_differ(self) -> bool:
        return self.has_loss and not self.modes_agree

    @property
    def modes_agree(self) -> bool:
        """Whether a few batches show that the losses of the modes are equal, so that the others need not be asked.

        That is so if the losses in eval mode, with recomputed statistics and in train mode differ by less than a
        twentieth of the loss of a constant output: half of what ``clearly_worse`` calls relevant. For two batches, half
        of that is required.
        """
        return self._decided[1]

    @cached_property
    def _decided(self) -> tuple[tuple[int, ...], bool]:
        """The numbers of the batches that tell in which mode the loss is larger, and whether the losses are equal."""
        if self.has_loss and self.few != self._all:
            limit = 0.1 * self.constant_output_loss
            for numbers, share in ((self.few[::2], 0.25), (self.few, 0.5)):
                train, *others = (self.losses(mode, numbers) for mode in _MODES)
                if losses_agree(train, others, share * limit):
                    return numbers, True
                if gaps_are_clear(train, *others, limit):
                    return numbers, False
        return self._all, False

    def losses(self, mode: str, numbers: Sequence[int]) -> Tensor:
        """Return the losses of some batches in a mode of ``_MODES``, or ``"batch"``; there must be a loss."""
        return torch.tensor([each.loss for each in self._batch_scores(mode, numbers)], dtype=torch.double)

    @property
    def norm_layers(self) -> dict:
        """The norm layers of the copy by name."""
        return self.instrumented.norm_layers

    @cached_property
    def backward_pass(self) -> Pass | None:
        """A forward and backward pass on the first batch; see ``run_backward``."""
        return self.run_backward()

    def run_backward(self) -> Pass | None:
        """Run the first batch forward and backward; None if the outputs are no tensor of floating-point numbers.

        Without a loss, the gradients at the outputs are random. Those of the parameters stay on the copy.
        """
        batch, outputs = self.batches[0], self.passes_by_batch[0].outputs
        main = main_output(outputs)
        if batch_loss(self._loss, outputs, batch) is not None:
            loss = partial(batch_loss, self._loss, batch=batch)
        elif isinstance(main, Tensor) and main.is_floating_point():
            direction = torch.randn(main.shape, generator=torch.Generator().manual_seed(0))
            loss = partial(_projection, direction=direction.to(main.device))
        else:
            self.skipped["gradients"] = "the outputs hold no tensor of floating-point numbers"
            return None
        try:
            with self.domain_in_use():
                return self.instrumented.with_gradients(batch, loss)
        except RuntimeError as error:
            self.skipped["gradients"] = f"the backward pass failed: {str(error).splitlines()[0]}"
            return None

    @cached_property
    def dead_channels(self) -> dict[str, Tensor]:
        """For each layer with a gamma of 0, which channels have a gamma of 0 without a gradient; shape (C,), bool."""
        return dead_channels(self.norm_layers, self.statistics, lambda: self.backward_pass is not None)

    @cached_property
    def layers_after_dead_layer(self) -> set[str]:
        """The layers after one whose output is only beta: that layer is the cause of problems with their inputs."""
        order = list(self.passes_by_batch[0].calls)
        dead = [order.index(name) for name, channels in self.dead_channels.items() if channels.all() and name in order]
        dead += [order.index(name) for name in self.layers_that_end_the_signal]
        return set(order[min(dead) + 1 :]) if dead else set()

    @cached_property
    def layers_that_end_the_signal(self) -> list[str]:
        """The layers with a gamma of 0 after which the network is constant."""
        run_again = partial(self._run.run, 0, "batch", record=True)
        return layers_that_end_the_signal(self.norm_layers, self.passes_by_batch[0], self.statistics, run_again)

    @cached_property
    def constant_output_loss(self) -> float:
        """The loss of a model with a constant output, the mean output: the scale for differences between losses."""
        found = constant_output_loss(self._loss, [run.outputs for run in self.passes_by_batch], self.batches)
        return abs(float(self.losses("batch", self._all).mean())) if found is None else found

    def clearly_worse(self, worse: Score, better: Score) -> bool:
        """Return whether the first loss is clearly larger than the second: by a relevant and significant amount.

        Relevant is a tenth of the loss of a constant output, for example 0.23 of 2.3 nats with ten classes.
        Significant are three standard errors over the batches; chance exceeds them in 1 of 700 cases.
        """
        if not worse.losses.isfinite().all():
            return bool(better.losses.isfinite().all())
        gaps = worse.losses - better.losses
        standard_error = float(gaps.std() / len(gaps) ** 0.5) if len(gaps) > 1 else 0.0
        return float(gaps.mean()) > max(0.1 * self.constant_output_loss, 3 * standard_error)

    @cached_property
    def reshuffled(self) -> Measurements | None:
        """Measurements on the same samples, shuffled into other batches of the same sizes; None if impossible."""
        takes_batches = self._loss is not None
        reason = why_not_reshuffled(self.batches, takes_batches)
        if reason:
            self.skipped["whether the loss is as low after the samples are shuffled into other batches"] = reason
            return None
        other = self.on_batches(reshuffled_batches(self.batches, takes_batches), self._domain, record=False)
        self.compares_all = other.compares_all = True
        other.has_loss = self.has_loss
        return other

    def remarks(self) -> Iterator[str]:
        """Yield a sentence for each thing that could not be checked."""
        not_called = [name for name in self.norm_layers if name not in self.statistics]
        if not_called:
            names = ", ".join(not_called[:8]) + ", ..." * (len(not_called) > 8)
            yield f"Not checked, because the model does not call them on these batches: {names}."
        if not self.has_loss:
            yield self._why_no_loss()
        yield from self.skipped_remarks()

    def skipped_remarks(self) -> list[str]:
        """Return a sentence for each check that could not run."""
        return [f"Not checked: {what}, because {why}." for what, why in self.skipped.items()]

    def _why_no_loss(self) -> str:
        if all(batch.targets is None for batch in self.batches):
            return "The batches have no targets, so losses and labels could not be checked."
        outputs, targets = self.passes_by_batch[0].outputs, self.batches[0].targets
        return (
            f"No default loss fits outputs {describe(outputs)} and targets {describe(targets)}, so losses could not be "
            "checked; pass loss=."
        )

    @property
    def _all(self) -> tuple[int, ...]:
        return tuple(range(len(self.batches)))

    @property
    def few(self) -> tuple[int, ...]:
        """The numbers of a few batches, spread over all."""
        count = len(self.batches)
        few = min(count, _ASKED_FIRST)
        return tuple(number * count // few for number in range(few))

    @cached_property
    def _corrected(self) -> bool:
        return any(isinstance(layer, CORRECTED_IN_TRAIN_MODE) for layer in self.norm_layers.values())

    @cached_property
    def _a_layer_is_far(self) -> bool:
        """Whether the running statistics of a layer are far from its data, so that ``statistics_in_eval`` is needed."""
        for name, data in self.statistics.items():
            found = running_statistics(self.norm_layers[name])
            # Not "distance > limit": it may be nan.
            if found is not None and not distance(self.norm_layers[name], *found, data).value <= MISMATCH:
                return True
        return False

    def _passes(self, mode: str, numbers: Sequence[int]) -> list[Pass]:
        """Return the passes of some batches in a mode."""
        if mode == "batch" or (mode == "train" and not self._corrected):
            return [self.passes_by_batch[number] for number in numbers]
        substitutes = self.precise_statistics if mode == "recomputed" else None
        record = mode == "eval" and self._record and self._a_layer_is_far
        return self._run.kept(_MODES[mode], numbers, substitutes, record)

    def _score(self, mode: str, numbers: Sequence[int]) -> Score | None:
        """Return the score of some batches in a mode; None if the loss of a batch is unknown."""
        return Score.of(self._batch_scores(mode, numbers))

    def known_score(self, mode: str) -> Score | None:
        """Return the score in a mode if the passes for it were run already; None if they were not."""
        kept = "batch" if mode == "train" and not self._corrected else mode
        for numbers in (self._all, self.few, self.few[::2]):
            if all(self._scores.get((kept, number)) is not None for number in numbers):
                return self._score(mode, numbers)
        return None

    def _batch_scores(self, mode: str, numbers: Sequence[int]) -> list[BatchScore | None]:
        mode = "batch" if mode == "train" and not self._corrected else mode
        new = [number for number in numbers if (mode, number) not in self._scores]
        for number, run in zip(new, self._passes(mode, new), strict=True):
            self._scores[mode, number] = batch_score(self._loss, run.outputs, self.batches[number])
        return [self._scores[mode, number] for number in numbers]

    def _statistics(self, passes: Sequence[Pass]) -> dict[str, PooledStatistics]:
        calls = {name: [call for run in passes for call in run.calls.get(name, [])] for name in self.norm_layers}
        pooled = {name: pool_statistics(each) for name, each in calls.items()}
        return {name: each for name, each in pooled.items() if each is not None}


def _projection(outputs: object, direction: Tensor) -> Tensor:
    main = main_output(outputs)
    return (main * direction.to(main.dtype)).sum()
