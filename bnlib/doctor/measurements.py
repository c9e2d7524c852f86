"""What the checks need to know of a model on batches, each measured once, when it is first needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from bnlib.doctor.batches import Batch
from bnlib.doctor.constant_signals import layers_that_end_the_signal
from bnlib.doctor.instrumented_model import InstrumentedModel, Pass
from bnlib.doctor.layer_statistics import PooledStatistics, pool_statistics
from bnlib.doctor.losses import Loss, Score, batch_loss, has_samples, main_output, own_loss, score
from bnlib.doctor.norm_layers import CORRECTED_IN_TRAIN_MODE, gamma
from bnlib.doctor.structures import describe, join, sample_count, sample_shapes, select
from bnlib.norm import DomainBatchNorm, use_domain

_ASKED_FIRST = 4
"""Number of batches that are asked first whether a further look is needed."""


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
        self.will_be_trained, self.by_domain, self.loader, self.skipped = False, {}, None, {}
        self._eval_passes: list[Pass] = []
        self._precise_passes: list[Pass] = []
        self._loss, self._domain, self._record = loss, domain, record
        if domain is None:
            self._let_the_model_compute_its_loss()

    def on_batches(self, batches: Sequence[Batch], domain: object, record: bool = True) -> Measurements:
        """Return measurements of the same model on other batches."""
        return Measurements(self.instrumented, batches, self._loss, self.inference, domain, record)

    @cached_property
    def passes_by_batch(self) -> list[Pass]:
        """A pass for each batch in which each norm layer normalises by the statistics of the batch."""
        return self._passes("batch", record=self._record)

    @cached_property
    def passes_in_eval(self) -> list[Pass]:
        """A pass for each batch in which each norm layer normalises by its running statistics."""
        return self._in_eval_mode(len(self.batches))

    @cached_property
    def statistics(self) -> dict[str, PooledStatistics]:
        """The statistics of each called layer's input if the layers below normalise by the batch."""
        return self._statistics(self.passes_by_batch)

    @cached_property
    def statistics_in_eval(self) -> dict[str, PooledStatistics]:
        """The statistics of each called layer's input if the layers below normalise by their running statistics."""
        return self._statistics(self._passes("eval", record=True))

    @cached_property
    def train_score(self) -> Score | None:
        """The losses in train mode; None if no loss is known."""
        corrected = any(isinstance(layer, CORRECTED_IN_TRAIN_MODE) for layer in self.norm_layers.values())
        return self._score(self._passes("train") if corrected else self.passes_by_batch)

    @cached_property
    def eval_score(self) -> Score | None:
        """The losses in eval mode."""
        return None if self.train_score is None else self._score(self.passes_in_eval)

    @cached_property
    def eval_recomputed_score(self) -> Score | None:
        """The losses in eval mode with running statistics recomputed from these batches."""
        return self._score(self._with_precise_statistics(len(self.batches)))

    def score_with_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> Score | None:
        """Return the losses in eval mode with other statistics in some layers, by their names."""
        return self._score(self._passes("substitute", statistics))

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
        batch = self.batches[number]
        return float(batch_loss(self._loss, self.pass_with_statistics(batch, some).outputs, batch))

    def pass_with_statistics(self, batch: Batch, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> Pass:
        """Return a pass in eval mode with other statistics in some layers, by their names."""
        with self.domain_in_use():
            return self.instrumented(batch, "substitute", statistics)

    @property
    def scores_by_mode(self) -> dict[str, Score | None]:
        """The four scores that ``losses_by_mode`` returns."""
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
        return self.train_score is not None and not self.modes_agree

    @cached_property
    def modes_agree(self) -> bool:
        """Whether the first batches show that the losses of the modes are equal, so that the others need not be asked.

        That is so if the losses in eval mode, with recomputed statistics and in train mode differ by less than a
        twentieth of the loss of a constant output: half of what ``clearly_worse`` calls relevant.
        """
        few = self.batches[:_ASKED_FIRST]
        if self.train_score is None or len(self.batches) <= len(few):
            return False
        train = self.train_score.losses[: len(few)]
        for passes in (self._in_eval_mode, self._with_precise_statistics):
            gaps = (self._score(passes(len(few))[: len(few)], few).losses - train).abs()
            # Not "gaps > limit": they may be nan.
            if not (gaps.mean() < 0.05 * self.constant_output_loss and gaps.max() < 0.1 * self.constant_output_loss):
                return False
        return True

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
        found = {}
        for name in self.statistics:
            weight = gamma(self.norm_layers[name])
            if weight is not None and bool((weight == 0).any()) and self.backward_pass is not None:
                dead = weight == 0 if weight.grad is None else (weight == 0) & (weight.grad == 0)
                found[name] = dead.detach().cpu()
        return found

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
        return layers_that_end_the_signal(self.norm_layers, self.passes_by_batch[0], self.statistics)

    @cached_property
    def constant_output_loss(self) -> float:
        """The loss of a model with a constant output, the mean output: the scale for differences between losses."""
        outputs = [main_output(run.outputs) for run in self.passes_by_batch]
        typical = abs(float(self.train_score.losses.mean()))
        computed_outside = all(own_loss(run.outputs, self.batches[0]) is None for run in self.passes_by_batch[:1])
        if not computed_outside or not all(has_samples(each) for each in outputs):
            return typical
        # The mean is taken over all batches, because the mean of a batch of one class would be a good output.
        alike = [each.mean(0) for each in outputs if each.shape[1:] == outputs[0].shape[1:]]
        mean = torch.stack(alike).mean(0)
        pairs = [(run.outputs, each) for run, each in zip(self.passes_by_batch, outputs, strict=True)]
        if not all(whole is main for whole, main in pairs):
            # The loss takes more than this tensor.
            return typical
        values = [
            abs(float(batch_loss(self._loss, mean.expand_as(each), batch)))
            for each, batch in zip(outputs, self.batches, strict=True)
            if each.shape[1:] == mean.shape
        ]
        return float(np.mean(values))

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
        reason = self._why_not_reshuffled()
        if reason:
            self.skipped["whether the loss is as low after the samples are shuffled into other batches"] = reason
            return None
        sizes = [batch.size for batch in self.batches]
        order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))
        everything = select(join([self._needed_parts(batch) for batch in self.batches]), order)
        parts = [select(everything, slice(end - size, end)) for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
        return self.on_batches([Batch(*inputs, *rest) for inputs, *rest in parts], self._domain, record=False)

    def _needed_parts(self, batch: Batch) -> tuple:
        """Return what the model and the loss take: a loss without targets takes the whole batch."""
        whole = batch.whole if self._loss is not None and batch.targets is None else None
        return batch.inputs, batch.targets, whole

    def _why_not_reshuffled(self) -> str:
        """Return why the samples cannot be shuffled into other batches; empty if they can."""
        if len(self.batches) < 2:
            return "there is only one batch"
        if any(batch.size is None for batch in self.batches):
            return "the samples are not the first dimension of each tensor of a batch"
        for batch in self.batches:
            _, targets, whole = self._needed_parts(batch)
            if any(each is not None and sample_count(each) != batch.size for each in (targets, whole)):
                return "the targets do not belong to single samples"
            if sample_shapes((batch.inputs, targets)) != sample_shapes(
                (self.batches[0].inputs, self.batches[0].targets)
            ):
                return "the samples have different shapes"
        return ""

    def remarks(self) -> Iterator[str]:
        """Yield a sentence for each thing that could not be checked."""
        not_called = [name for name in self.norm_layers if name not in self.statistics]
        if not_called:
            names = ", ".join(not_called[:8]) + ", ..." * (len(not_called) > 8)
            yield f"Not checked, because the model does not call them on these batches: {names}."
        if self.train_score is None:
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

    def _let_the_model_compute_its_loss(self) -> None:
        """Run the model with its targets where only that gives a loss, as with a detector in train mode."""
        targets = self.batches[0].targets
        per_sample = isinstance(targets, (tuple, list)) and targets and isinstance(targets[0], Mapping)
        if self._loss is not None or not per_sample:
            return
        self.instrumented.train_other_modules()
        with_targets = [replace(each, arguments=(*each.arguments, each.targets)) for each in self.batches]
        try:
            found = own_loss(self.instrumented(with_targets[0], "eval").outputs, with_targets[0])
        except Exception:
            found = None
        if found is None:
            self.instrumented.model.eval()
        else:
            self.batches = with_targets

    def _score(self, passes: Sequence[Pass], batches: Sequence[Batch] | None = None) -> Score | None:
        return score(self._loss, [each.outputs for each in passes], self.batches if batches is None else batches)

    def _in_eval_mode(self, count: int) -> list[Pass]:
        """Return passes in eval mode for at least the first ``count`` batches."""
        self._eval_passes += self._passes("eval", start=len(self._eval_passes), stop=count)
        return self._eval_passes

    def _with_precise_statistics(self, count: int) -> list[Pass]:
        """Return passes in eval mode with recomputed statistics for at least the first ``count`` batches."""
        done = self._precise_passes
        done += self._passes("substitute", self.precise_statistics, start=len(done), stop=count)
        return done

    def _passes(
        self,
        normalise_by: str,
        substitutes: Mapping | None = None,
        record: bool = False,
        start: int = 0,
        stop: int | None = None,
    ) -> list[Pass]:
        with self.domain_in_use():
            passes = []
            for number, batch in enumerate(self.batches[start:stop], start):
                try:
                    passes.append(self.instrumented(batch, normalise_by, substitutes, record))
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
            return passes

    def _statistics(self, passes: Sequence[Pass]) -> dict[str, PooledStatistics]:
        calls = {name: [call for run in passes for call in run.calls.get(name, [])] for name in self.norm_layers}
        pooled = {name: pool_statistics(each) for name, each in calls.items()}
        return {name: each for name, each in pooled.items() if each is not None}

    def domain_in_use(self):
        """Return a context in which DomainBatchNorm layers use the domain of these batches."""
        model = self.instrumented.model
        has_domains = any(isinstance(module, DomainBatchNorm) for module in model.modules())
        return use_domain(model, self._domain) if has_domains and self._domain is not None else nullcontext()


def _projection(outputs: object, direction: Tensor) -> Tensor:
    main = main_output(outputs)
    return (main * direction.to(main.dtype)).sum()
