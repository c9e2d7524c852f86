"""What the checks need to know of a model on batches, each measured once, when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from bnlib.doctor.batches import Batch
from bnlib.doctor.instrumented_model import CORRECTED_IN_TRAIN_MODE, InstrumentedModel, Pass
from bnlib.doctor.layer_statistics import PooledStatistics, pool_statistics
from bnlib.doctor.losses import Loss, Score, batch_loss, score
from bnlib.norm import DomainBatchNorm, use_domain


class Measurements:
    """All measurements of one model on given batches.

    Arguments:
        instrumented: the copy of the model.
        batches: the batches to run it on.
        loss: see ``diagnose``.
        inference: see ``diagnose``.
        domain: the domain that DomainBatchNorm layers use.

    Attributes:
        will_be_trained: whether the user's model is in train mode and not meant for inference.
        by_domain: the measurements on the batches of each domain, by its name.
    """

    def __init__(
        self,
        instrumented: InstrumentedModel,
        batches: Sequence[Batch],
        loss: Loss | None,
        inference: bool,
        domain: object = None,
    ) -> None:
        self.instrumented, self.batches, self.inference = instrumented, batches, inference
        self.will_be_trained, self.by_domain = False, {}
        self._loss, self._domain = loss, domain

    def on_batches(self, batches: Sequence[Batch], domain: object) -> Measurements:
        """Return measurements of the same model on other batches."""
        return Measurements(self.instrumented, batches, self._loss, self.inference, domain)

    @cached_property
    def passes_by_batch(self) -> list[Pass]:
        """A pass for each batch in which each norm layer normalises by the statistics of the batch."""
        return self._passes("batch")

    @cached_property
    def passes_in_eval(self) -> list[Pass]:
        """A pass for each batch in which each norm layer normalises by its running statistics."""
        return self._passes("eval")

    @cached_property
    def statistics(self) -> dict[str, PooledStatistics]:
        """The statistics of each called layer's input if the layers below normalise by the batch."""
        return self._statistics(self.passes_by_batch)

    @cached_property
    def statistics_in_eval(self) -> dict[str, PooledStatistics]:
        """The statistics of each called layer's input if the layers below normalise by their running statistics."""
        return self._statistics(self.passes_in_eval)

    @cached_property
    def train_score(self) -> Score | None:
        """The losses in train mode; None if no loss is known."""
        only_batch = not any(isinstance(layer, CORRECTED_IN_TRAIN_MODE) for layer in self.norm_layers.values())
        return self._score(self.passes_by_batch if only_batch else self._passes("train"))

    @cached_property
    def eval_score(self) -> Score | None:
        """The losses in eval mode."""
        return None if self.train_score is None else self._score(self.passes_in_eval)

    @cached_property
    def eval_recomputed_score(self) -> Score | None:
        """The losses in eval mode with running statistics recomputed from these batches."""
        substitutes = {name: (each.mean, each.total_variance) for name, each in self.statistics.items()}
        return self._score(self._passes("substitute", substitutes))

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
        return self.eval_score is not None and self.clearly_worse(self.eval_score, self.train_score)

    @property
    def norm_layers(self) -> dict:
        """The norm layers of the copy by name."""
        return self.instrumented.norm_layers

    @cached_property
    def backward_pass(self) -> Pass | None:
        """A forward and backward pass on the first batch; None if the outputs are no tensor of floating-point numbers.

        If no loss is known, the pass starts from random gradients at the outputs. The gradients of the parameters
        stay on the copy.
        """
        batch, outputs = self.batches[0], self.passes_by_batch[0].outputs
        if batch_loss(self._loss, outputs, batch) is not None:
            loss = partial(batch_loss, self._loss, batch=batch)
        elif isinstance(outputs, Tensor) and outputs.is_floating_point():
            direction = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))
            loss = partial(_projection, direction=direction.to(outputs.device))
        else:
            return None
        with self._domain_in_use():
            return self.instrumented.with_gradients(batch.inputs, loss)

    @cached_property
    def dead_channels(self) -> dict[str, Tensor]:
        """For each layer with a gamma of 0, which channels have a gamma of 0 without a gradient; shape (C,), bool."""
        found = {}
        for name in self.statistics:
            weight = self.norm_layers[name].weight
            if weight is not None and bool((weight == 0).any()) and self.backward_pass is not None:
                dead = weight == 0 if weight.grad is None else (weight == 0) & (weight.grad == 0)
                found[name] = dead.detach().cpu()
        return found

    @cached_property
    def layers_after_dead_layer(self) -> set[str]:
        """The layers after one whose output is only beta: that layer is the cause of problems with their inputs."""
        order = list(self.passes_by_batch[0].calls)
        dead = [order.index(name) for name, channels in self.dead_channels.items() if channels.all() and name in order]
        return set(order[min(dead) + 1 :]) if dead else set()

    @cached_property
    def constant_output_loss(self) -> float:
        """The loss of a model with a constant output, the mean output: the scale for differences between losses."""
        outputs = [run.outputs for run in self.passes_by_batch]
        if not all(isinstance(each, Tensor) and each.is_floating_point() and each.dim() for each in outputs):
            return abs(float(self.train_score.losses.mean()))
        # The mean is taken over all batches, because the mean of a batch of one class would be a good output.
        alike = [each.mean(0) for each in outputs if each.shape[1:] == outputs[0].shape[1:]]
        mean = torch.stack(alike).mean(0)
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
        parts = [[getattr(batch, name) for batch in self.batches] for name in ("inputs", "targets")]
        if any(len({_sample_shape(each) for each in part} - {None}) != 1 for part in parts):
            return None
        if any(None in map(_sample_shape, part) for part in parts):
            return None
        sizes = [len(each) for each in parts[0]]
        if len(sizes) < 2 or sizes != [len(each) for each in parts[1]]:
            return None
        order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))
        shuffled = [torch.cat(part)[order.to(part[0].device)].split(sizes) for part in parts]
        return self.on_batches([Batch(*pair) for pair in zip(*shuffled, strict=True)], self._domain)

    @cached_property
    def outputs_in_two_batches(self) -> tuple[Tensor, Tensor] | None:
        """Outputs for the same samples in two batches with different other samples, in the user's modes."""
        size = max(2, len(self._inputs_of_one_shape()[0]))
        return self._outputs_with_other_samples("original", size, lambda others: [others])

    @cached_property
    def eval_outputs_in_three_batches(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """The same after ``model.eval()``, and a third time with the other samples in reverse order."""
        return self._outputs_with_other_samples("eval", 16, lambda others: [others, others.flip(0)], smallest=4)

    def remarks(self) -> Iterator[str]:
        """Yield a sentence for each thing that could not be checked."""
        not_called = [name for name in self.norm_layers if name not in self.statistics]
        if not_called:
            yield f"Not checked, because the model does not call them on these batches: {', '.join(not_called)}."
        if all(batch.targets is None for batch in self.batches):
            yield "The batches have no targets, so losses and labels could not be checked."
        elif self.train_score is None:
            yield "No default loss fits these outputs and targets, so losses could not be checked; pass loss=."

    def _score(self, passes: Sequence[Pass]) -> Score | None:
        return score(self._loss, [each.outputs for each in passes], self.batches)

    def _inputs_of_one_shape(self) -> list[Tensor]:
        """Return the batches' inputs whose samples have the shape of the first; an empty tensor if there are none."""
        inputs = [batch.inputs for batch in self.batches]
        alike = [each for each in inputs if isinstance(each, Tensor) and each.shape[1:] == inputs[0].shape[1:]]
        return alike if alike and alike[0].dim() else [torch.empty(0)]

    def _outputs_with_other_samples(
        self, normalise_by: str, size: int, orders: Callable[[Tensor], list[Tensor]], smallest: int = 2
    ) -> tuple[Tensor, ...] | None:
        """Return the outputs for the first half of a batch, for several second halves.

        Arguments:
            normalise_by: see ``InstrumentedModel``.
            size: of the batches; less if there are fewer samples, but at least ``smallest``.
            orders: takes other samples and returns the second halves, after the batch's own.
            smallest: return None if there are too few samples for batches of this size.
        """
        pool = torch.cat(self._inputs_of_one_shape())
        size = max(2, min(size, len(pool) // 2))
        if len(pool) < 3 or size < smallest:
            return None
        kept = max(1, size // 2)
        second_halves = orders(pool[-(size - kept) :])
        with self._domain_in_use():
            mixed = [pool[:size], *(torch.cat([pool[:kept], each]) for each in second_halves)]
            outputs = [self.instrumented(each, normalise_by).outputs for each in mixed]
        if not all(isinstance(each, Tensor) and len(each) == size for each in outputs):
            return None
        return tuple(each[:kept] for each in outputs)

    def _passes(self, normalise_by: str, substitutes: Mapping | None = None) -> list[Pass]:
        with self._domain_in_use():
            passes = []
            for number, batch in enumerate(self.batches):
                try:
                    passes.append(self.instrumented(batch.inputs, normalise_by, substitutes))
                except Exception as error:
                    error.add_note(f"The model raised this error when diagnose called it with batch {number}.")
                    raise
            return passes

    def _statistics(self, passes: Sequence[Pass]) -> dict[str, PooledStatistics]:
        calls = {name: [call for run in passes for call in run.calls.get(name, [])] for name in self.norm_layers}
        pooled = {name: pool_statistics(each) for name, each in calls.items()}
        return {name: each for name, each in pooled.items() if each is not None}

    def _domain_in_use(self):
        model = self.instrumented.model
        has_domains = any(isinstance(module, DomainBatchNorm) for module in model.modules())
        return use_domain(model, self._domain) if has_domains and self._domain is not None else nullcontext()


def _sample_shape(value: object) -> tuple[int, ...] | None:
    """Return the shape of one sample; None for what holds no samples."""
    return tuple(value.shape[1:]) if isinstance(value, Tensor) and value.dim() else None


def _projection(outputs: Tensor, direction: Tensor) -> Tensor:
    return (outputs * direction.to(outputs.dtype)).sum()
