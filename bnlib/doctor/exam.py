"""What is measured of a model on batches, once for all checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from bnlib.doctor.watch import CORRECTED, Pass, Statistics, Watch, default_loss, pooled
from bnlib.norm import DomainBatchNorm, FullNorm, use_domain

Loss = Callable[[object, object], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """What a loader yields; ``targets`` is None where there are none."""

    inputs: object
    targets: object = None


@dataclass(frozen=True, eq=False)
class Score:
    """Of one way of normalising, over several batches.

    Attributes:
        losses: of each batch.
        error: share of the classes that are wrong; None where the targets are no classes.
    """

    losses: Tensor
    error: float | None

    def __str__(self) -> str:
        loss = f"{float(self.losses.mean()):.3g}"
        return loss if self.error is None else f"{loss} (error {self.error:.1%})"


class Exam:
    """The measurements that checks share, each made when it is first asked for.

    Arguments:
        watch: the copy of the model.
        batches: to run it on.
        loss: see ``diagnose``.
        inference: see ``diagnose``.
        domain: for DomainBatchNorm.

    Attributes:
        training: the model was handed over in train mode, to be trained.
        domains: the same for the batches of each domain.
    """

    def __init__(
        self, watch: Watch, batches: Sequence[Batch], loss: Loss | None, inference: bool, domain: object = None
    ) -> None:
        self.watch, self.batches, self.inference = watch, batches, inference
        self.training, self.domains = False, {}
        self._loss, self._domain = loss, domain

    def beside(self, batches: Sequence[Batch], domain: object) -> Exam:
        """The same model on other batches."""
        return Exam(self.watch, batches, self._loss, self.inference, domain)

    @cached_property
    def seen(self) -> list[Pass]:
        """Each batch, normalised by its own statistics."""
        return self._passes("batch")

    @cached_property
    def used(self) -> list[Pass]:
        """Each batch, normalised by the running statistics."""
        return self._passes("running")

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """What the data give for each layer that was called, the layers below normalised by the batch."""
        return self._statistics(self.seen)

    @cached_property
    def used_statistics(self) -> dict[str, Statistics]:
        """The same with the layers below normalised by their running statistics."""
        return self._statistics(self.used)

    @cached_property
    def seen_score(self) -> Score | None:
        """Of train mode, which in some layers does not go by the batch alone."""
        by_batch = not any(isinstance(layer, CORRECTED) for layer in self.watch.norms.values())
        return self.score(self.seen if by_batch else self._passes("train"))

    @cached_property
    def used_score(self) -> Score | None:
        """Of eval mode."""
        return None if self.seen_score is None else self.score(self.used)

    @cached_property
    def precise_score(self) -> Score | None:
        """Of eval mode if the running statistics were those of these batches."""
        given = {name: (each.mean, each.total) for name, each in self.statistics.items()}
        return self.score(self._passes("given", given))

    @property
    def four_scores(self) -> dict[str, Score | None]:
        """Of train mode in these batches and dealt out anew, of eval mode with precise and with running statistics."""
        dealt = None if self.dealt is None else self.dealt.seen_score
        scores = {"own": self.seen_score, "dealt": dealt, "precise": self.precise_score}
        return scores | {"running": self.used_score}

    @cached_property
    def gradients(self) -> Pass | None:
        """A backward pass on the first batch, without a loss from random numbers at the output; None if it has none.

        The gradients of parameters are left on the copy.
        """
        batch, outputs = self.batches[0], self.seen[0].outputs
        if self.loss_of(outputs, batch) is not None:
            loss = partial(self.loss_of, batch=batch)
        elif isinstance(outputs, Tensor) and outputs.is_floating_point():
            direction = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))
            loss = partial(_projected, direction=direction.to(outputs.device))
        else:
            return None
        with self._told():
            return self.watch.with_gradients(batch.inputs, loss)

    @cached_property
    def dead(self) -> dict[str, Tensor]:
        """Which channels have a gamma of 0 that gets no gradient, shape (C,), for the layers with a gamma of 0."""
        found = {}
        for name in self.statistics:
            weight = self.watch.norms[name].weight
            if weight is not None and bool((weight == 0).any()) and self.gradients is not None:
                stays = weight == 0 if weight.grad is None else (weight == 0) & (weight.grad == 0)
                found[name] = stays.detach().cpu()
        return found

    @cached_property
    def silent(self) -> set[str]:
        """Layers behind one that puts out nothing but beta: what is wrong with their input is that layer's fault."""
        order = list(self.seen[0].calls)
        first = [order.index(name) for name, channels in self.dead.items() if channels.all() and name in order]
        return set(order[min(first) + 1 :]) if first else set()

    @cached_property
    def scale(self) -> float:
        """A loss to compare differences with: that of an answer that is the same for all inputs, the mean output."""
        outputs = [run.outputs for run in self.seen]
        if not all(isinstance(each, Tensor) and each.is_floating_point() and each.dim() for each in outputs):
            return abs(float(self.seen_score.losses.mean()))
        # Over all batches: the mean of a batch of one class would be a good answer.
        alike = [each.mean(0) for each in outputs if each.shape[1:] == outputs[0].shape[1:]]
        mean = torch.stack(alike).mean(0)
        values = [
            abs(float(self.loss_of(mean.expand_as(each), batch)))
            for each, batch in zip(outputs, self.batches, strict=True)
            if each.shape[1:] == mean.shape
        ]
        return float(np.mean(values))

    def loss_of(self, outputs: object, batch: Batch) -> Tensor | None:
        """The loss of a batch, None where there is none."""
        if batch.targets is None:
            return None
        value = (self._loss or default_loss)(outputs, batch.targets)
        if value is not None and (not isinstance(value, Tensor) or value.numel() != 1):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss must return a tensor with a single number, got {got}")
        return value

    def score(self, runs: Sequence[Pass]) -> Score | None:
        """Losses of runs on all batches; None where a batch has none."""
        losses = [self.loss_of(run.outputs, batch) for run, batch in zip(runs, self.batches, strict=True)]
        if any(value is None for value in losses):
            return None
        wrong, count = 0, 0
        for run, batch in zip(runs, self.batches, strict=True):
            if default_loss(run.outputs, batch.targets) is not None:
                dim = -1 if run.outputs.shape[:-1] == batch.targets.shape else 1
                wrong += int((run.outputs.argmax(dim) != batch.targets).sum())
                count += batch.targets.numel()
        values = torch.tensor([float(value) for value in losses], dtype=torch.double)
        return Score(values, wrong / count if count else None)

    def costs(self, worse: Score, better: Score) -> bool:
        """Whether one way of normalising has clearly the larger loss: for most batches, and by an amount that matters.

        A tenth of what a constant answer costs is, in classes, 0.23 of the 2.3 nats that ten of them have. Three
        standard errors over the batches leave 1 in 700 to chance.
        """
        if not worse.losses.isfinite().all():
            return bool(better.losses.isfinite().all())
        gaps = worse.losses - better.losses
        error = float(gaps.std() / len(gaps) ** 0.5) if len(gaps) > 1 else 0.0
        return float(gaps.mean()) > max(0.1 * self.scale, 3 * error)

    @cached_property
    def dealt(self) -> Exam | None:
        """The same samples dealt out into other batches of these sizes; None if they cannot be."""
        parts = [[getattr(batch, name) for batch in self.batches] for name in ("inputs", "targets")]
        if any(len({_shape(each) for each in part} - {None}) != 1 or None in map(_shape, part) for part in parts):
            return None
        sizes = [len(each) for each in parts[0]]
        if len(sizes) < 2 or sizes != [len(each) for each in parts[1]]:
            return None
        order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))
        dealt = [torch.cat(part)[order.to(part[0].device)].split(sizes) for part in parts]
        return self.beside([Batch(*pair) for pair in zip(*dealt, strict=True)], self._domain)

    @cached_property
    def company(self) -> tuple[Tensor, Tensor] | None:
        """Outputs, as the model was handed over, of the same samples in two batches that they share with others."""
        size = max(2, len(self._pool()[0]))
        return self._in_company("handed", size, lambda others: [others])

    @cached_property
    def company_in_eval(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """The same after ``model.eval()``, however far that reaches, and a third time with the others in reverse."""
        return self._in_company("running", 16, lambda others: [others, others.flip(0)], least=4)

    def _pool(self) -> list[Tensor]:
        """The inputs of the batches whose samples are like those of the first; an empty tensor if they are none."""
        inputs = [batch.inputs for batch in self.batches]
        alike = [each for each in inputs if isinstance(each, Tensor) and each.shape[1:] == inputs[0].shape[1:]]
        return alike if alike and alike[0].dim() else [torch.empty(0)]

    def _in_company(self, how: str, size: int, orders, least: int = 2) -> tuple[Tensor, ...] | None:
        """Outputs of the first half of a batch, in the company of the second half, and of other samples in ``orders``.

        ``least`` is the smallest batch to do it with.
        """
        pool = torch.cat(self._pool())
        size = max(2, min(size, len(pool) // 2))
        if len(pool) < 3 or size < least:
            return None
        kept = max(1, size // 2)
        others = orders(pool[-(size - kept) :])
        with self._told():
            mixed = [pool[:size], *(torch.cat([pool[:kept], each]) for each in others)]
            outputs = [self.watch(each, how).outputs for each in mixed]
        if not all(isinstance(each, Tensor) and len(each) == size for each in outputs):
            return None
        return tuple(each[:kept] for each in outputs)

    def remarks(self) -> Iterator[str]:
        """What could not be looked at."""
        idle = [name for name in self.watch.norms if name not in self.statistics]
        if idle:
            yield f"Not called on these batches, and so not looked at: {', '.join(idle)}."
        if all(batch.targets is None for batch in self.batches):
            yield "The batches have no targets, so that neither losses nor labels could be judged."
        elif self.seen_score is None:
            yield "No loss is known for these outputs and targets; give one with loss=."

    def _passes(self, how: str, given=None) -> list[Pass]:
        with self._told():
            runs = []
            for number, batch in enumerate(self.batches):
                try:
                    runs.append(self.watch(batch.inputs, how, given))
                except Exception as error:
                    error.add_note(f"This came from the model, which diagnose called with batch {number}.")
                    raise
            return runs

    def _statistics(self, runs: Sequence[Pass]) -> dict[str, Statistics]:
        parts = {name: pooled([call for run in runs for call in run.calls.get(name, [])]) for name in self.watch.norms}
        return {name: part for name, part in parts.items() if part is not None}

    def _told(self):
        many = any(isinstance(module, DomainBatchNorm) for module in self.watch.model.modules())
        return use_domain(self.watch.model, self._domain) if many and self._domain is not None else nullcontext()


def _shape(value: object) -> tuple[int, ...] | None:
    """Of a sample; None for what holds no samples."""
    return tuple(value.shape[1:]) if isinstance(value, Tensor) and value.dim() else None


def spread(statistics: Statistics, layer: nn.Module) -> Tensor:
    """The variance that a layer's running variance estimates."""
    whole = isinstance(layer, FullNorm) or bool(statistics.within.isnan().any())
    return statistics.total if whole else statistics.within


def _projected(outputs: Tensor, direction: Tensor) -> Tensor:
    return (outputs * direction.to(outputs.dtype)).sum()
