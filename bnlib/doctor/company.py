"""Checks of the batches: how many values they give a layer, whom they put together, and who depends on that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnlib.doctor.exam import Exam
from bnlib.doctor.report import Finding, finding
from bnlib.doctor.watch import NORMS
from bnlib.norm import FullNorm

_PERMUTATIONS = 200


def one_value(exam: Exam) -> Iterator[Finding]:
    """Train mode with a single value a channel: its own mean, so that the output is beta."""
    if exam.inference:
        return
    for name, counts in _counts(exam).items():
        ones = int((counts == 1).sum())
        if ones:
            raises = type(exam.watch.norms[name]).__module__.startswith("torch.")
            text = (
                f"In train mode {ones} of {len(counts)} batches give it one value a channel, which is its own mean: "
                f"{'torch raises an error' if raises else 'the output is beta, whatever the input'}."
            )
            yield finding("one-value-per-channel", name, "error", text)


def tiny(exam: Exam) -> Iterator[Finding]:
    """Few values a channel, so that each sample is normalised mostly by chance.

    The mean of N values is off by sigma / sqrt(N). On the digits a trained network that predicts by the statistics of
    the batch loses 2 % of accuracy at N = 16, 7 % at 8 and 18 % at 4. Trained with as few it loses little in eval
    mode down to 4, unless it has come to need what statistics of so few tell it.
    """
    if exam.inference:
        return
    lossy = exam.used_score is not None and exam.costs(exam.precise_score, exam.seen_score)
    for name, counts in _counts(exam).items():
        # Not the incomplete last batch.
        count = int(counts.median())
        if 1 < count < 16 and isinstance(exam.watch.norms[name], _BatchNorm):
            text = (
                f"A batch gives it {count} values a channel: the mean of the batch is off by {count**-0.5:.0%} of the "
                f"standard deviation by chance, the variance by about {(2 / (count - 1)) ** 0.5:.0%}."
            )
            if serious := lossy or count < 4:
                if lossy:
                    text += f" The loss is {exam.seen_score} in train mode, {exam.precise_score} in eval mode at best."
            else:
                text += " Train mode looks worse than the network is; look at eval mode."
            yield finding("tiny-batches", name, "warning" if serious else "note", text)


def by_batch_at_inference(exam: Exam) -> Iterator[Finding]:
    """A model that is to predict, but normalises by the batch: train mode, or no running statistics."""
    without = [name for name, layer in exam.watch.norms.items() if layer.running_mean is None]
    if not exam.inference:
        for name in without:
            text = "It keeps no running statistics, so that in eval mode, too, predictions depend on the batch."
            yield finding("no-running-statistics", name, "note", text)
        return
    stuck = [name for name, on in exam.watch.modes.items() if on and name not in without]
    for code, names, what in (
        ("train-mode-inference", stuck, "is in train mode"),
        ("no-running-statistics", without, "has no running statistics"),
    ):
        for name in names if len(names) < len(exam.watch.norms) else [""][: len(names)]:
            said = f"It {what}" if name else f"Every norm layer ({len(names)}) {what}"
            yield finding(code, name, "error", f"{said}{_disagreement(exam)}.")


def _disagreement(exam: Exam) -> str:
    outputs = exam.company
    if outputs is None:
        return ", so that a prediction depends on what else is in the batch"
    first, second = (each.cpu().double().flatten(1) for each in outputs)
    change = _change(first, second)
    text = f": in other company the outputs of the same {len(first)} samples change by {change:.1%} of their spread"
    if first.size(1) > 1 and exam.used_score is not None and exam.used_score.error is not None:
        text += f", and {int((first.argmax(1) != second.argmax(1)).sum())} of the predictions"
    return text


def _change(first: Tensor, second: Tensor) -> float:
    """How far two outputs for the same samples are apart, as a share of the spread over the samples."""
    size = (first - first.mean(0)).square().mean().sqrt() if len(first) > 1 else first.square().mean().sqrt()
    return float((first - second).square().mean().sqrt() / size.clamp(min=torch.finfo(torch.float32).tiny))


def by_batch_in_eval(exam: Exam) -> Iterator[Finding]:
    """A model whose predictions depend on the batch after ``model.eval()``, because that does not reach all it uses.

    The model is run as it is, so that this also sees what is no layer, or none that torch knows of. Statistics do not
    depend on the order of the others; where that matters as much, the model pairs samples, or they are steps in time.
    Rounding depends on the company, too, by a millionth.
    """
    outputs = exam.company_in_eval
    # Layers without running statistics are another finding.
    if outputs is None or any(layer.running_mean is None for layer in exam.watch.norms.values()):
        return
    if not outputs[0].is_floating_point():
        return
    first, other, reverse = (each.detach().cpu().double().flatten(1) for each in outputs)
    change = _change(first, other)
    if not change > max(1e-3, 10 * torch.finfo(outputs[0].dtype).eps) or _change(other, reverse) > 0.1 * change:
        return
    again = [name for name, layer in exam.watch.norms.items() if layer.training]
    lost = sorted(_unregistered(exam.watch.model))
    if again:
        why = f"Back in train mode after model.eval(): {', '.join(again)}."
    elif lost:
        why = f"Norm layers in a plain list, which model.eval() does not reach: {', '.join(lost)}."
    else:
        why = "No norm layer that is known to the model does it: look for a function such as F.batch_norm."
    text = (
        f"After model.eval() the outputs of the same {len(first)} samples change by {change:.1%} of their spread in "
        f"other company. {why}"
    )
    yield finding("eval-depends-on-batch", "", "error" if again or lost else "warning", text)


def _unregistered(model: nn.Module) -> Iterator[str]:
    """Where norm layers are kept in lists or dictionaries, as attributes that are no submodules."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            held = list(value.values()) if isinstance(value, dict) else value
            if key.startswith("_") or not isinstance(held, (list, tuple)):
                continue
            inside = [part for each in held if isinstance(each, nn.Module) for part in each.modules()]
            if any(isinstance(part, NORMS) for part in inside):
                yield f"{name}.{key}".lstrip(".")


def memorised(exam: Exam) -> Iterator[Finding]:
    """A model that knows its batches: the loss is small in these, and not where the same samples are dealt out anew.

    It says nothing of batches that are unlike each other, in which the loss is another for other reasons, nor of models
    that pair the samples of a batch, which are worse in eval mode, too, when these are dealt out anew.
    """
    dealt = exam.dealt
    if exam.inference or exam.domains or dealt is None or exam.seen_score is None or any(representative(exam)):
        return
    if exam.costs(dealt.seen_score, exam.seen_score) and not exam.costs(dealt.used_score, exam.used_score):
        text = (
            f"In train mode the loss is {exam.seen_score} in these batches, and {dealt.seen_score} where the same "
            f"samples are dealt out anew: it has learnt who comes with whom."
        )
        yield finding("company-memorised", "", "warning", text)


def representative(exam: Exam) -> Iterator[Finding]:
    """Batches that do not look like the data: of few labels each, sorted, or of one kind of input each."""
    if exam.inference:
        return
    found = _labels(exam) or _one_label(exam)
    # With domains it is known how they are put together, and what that does is another check.
    if found is None and not exam.domains:
        found = _means(exam)
    if found is None:
        return
    evidence, severity = found.evidence + _what_it_costs(exam), found.severity
    if exam.split:
        severity = "error"
    elif all(isinstance(exam.watch.norms[name], FullNorm) for name in exam.statistics):
        evidence, severity = f"{evidence} FullNorm is made for such batches.", "note"
    yield replace(found, evidence=evidence, severity=severity)


def _what_it_costs(exam: Exam) -> str:
    """The four numbers in a sentence."""
    if exam.seen_score is None:
        return ""
    scores = exam.four_scores
    dealt = "" if scores["dealt"] is None else f", {scores['dealt']} with the same samples dealt out anew"
    return (
        f" The loss is {scores['own']} in these batches{dealt}; in eval mode {scores['precise']} with their statistics "
        f"and {scores['running']} with the running ones."
    )


def _labels(exam: Exam) -> Finding | None:
    """Judge how much a batch tells of its labels, against the same batches with labels dealt out at random.

    Batches with k of 10 labels each come to 0.3 for k = 5, 0.5 for 3, 0.7 for 2 and 1 for one; so do those of which one
    class has three quarters, 0.5, which BN tolerates on the digits.
    """
    labels = _integer_labels(exam)
    if labels is None or len(labels) < 2:
        return None
    everything, classes = torch.cat(labels).unique(return_inverse=True)
    sizes = [len(each) for each in labels]
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))

    def within(classes: Tensor) -> float:
        """Entropy of the labels within a batch, on average, in nats."""
        counts = torch.zeros(len(sizes), len(everything), dtype=torch.double)
        counts.index_put_((batch, classes), torch.ones(len(classes), dtype=torch.double), accumulate=True)
        shares = counts / counts.sum(1, keepdim=True)
        return float((torch.special.entr(shares).sum(1) * counts.sum(1)).sum() / len(classes))

    measured = within(classes)
    overall = torch.special.entr(torch.bincount(classes).double() / len(classes)).sum()
    # Chance gives a batch the entropy of all labels at most, so that no random orders are needed to see this.
    if measured > 0.5 * float(overall):
        return None
    chance = _permuted(lambda order: within(classes[order]), len(classes))
    # Without entropy by chance, as with one label in all or one sample a batch, there is nothing to tell apart.
    if not chance.mean() > 0.05 or measured >= chance.min():
        return None
    share = 1 - measured / float(chance.mean())
    if share < 0.5:
        return None
    kinds = sum(len(each.unique()) for each in labels) / len(labels)
    text = (
        f"A batch of {sizes[0]} samples has {kinds:.1f} of {len(everything)} labels on average; their entropy is "
        f"{measured:.2f} nats, where random batches of these samples have {float(chance.mean()):.2f}."
    )
    return finding("batches-not-representative", "", "error" if share > 0.9 else "warning", text)


def _one_label(exam: Exam) -> Finding | None:
    """Judge batches that have all the same label: the beginning of sorted data, perhaps."""
    labels, outputs = _integer_labels(exam), exam.seen[0].outputs
    if labels is None or not isinstance(outputs, Tensor) or outputs.dim() != 2:
        return None
    everything = torch.cat(labels)
    # Of two classes one may be as rare as fraud is.
    if len(everything) < 64 or len(everything.unique()) > 1 or outputs.size(1) < 3:
        return None
    text = (
        f"All {len(everything)} samples of {len(labels)} batches have label {int(everything[0])}, but the model has "
        f"{outputs.size(1)} outputs."
    )
    return finding("batches-not-representative", "", "warning", text)


def _means(exam: Exam) -> Finding | None:
    """Judge by the values themselves, before any layer has normalised them."""
    where, measured = between_batches(exam)
    if not measured:
        return None
    text = (
        f"In {where} {measured:.0%} of the variance of the samples is between batches (median over channels), where "
        f"random batches have none: each batch holds one kind of sample."
    )
    return finding("batches-not-representative", "", "warning", text)


def between_batches(exam: Exam) -> tuple[str, float]:
    """Where the share of the variance that is between batches is largest, and the share; 0 if it may be by chance.

    It is the intraclass correlation: 0 for random batches of any size, 0.4 for the pixels and 0.1 to 0.6 for the first
    layer of the digits in batches of one label, half of that with two. A fifth, and more than in all of as many random
    orders as are tried.
    """
    best = "", 0.0
    for where, parts in _by_sample(exam).items():
        sizes = torch.tensor([len(part) for part in parts])
        if len(sizes) < 2 or sizes.max() < 2 or any(part.shape[1:] != parts[0].shape[1:] for part in parts):
            continue
        samples, batch = torch.cat(parts), torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        share = partial(_shuffled_share, samples, batch)
        measured = share(torch.arange(len(samples)))
        if measured > max(0.2, best[1]) and measured > _permuted(share, len(samples)).max():
            best = where, measured
    return best


def _by_sample(exam: Exam) -> dict[str, list[Tensor]]:
    """Values to be judged, for each batch of shape (n, channels)."""
    found = {}
    inputs = [batch.inputs for batch in exam.batches]
    if all(isinstance(each, Tensor) and each.is_floating_point() and each.dim() > 1 for each in inputs):
        # Some hundred features tell as much as all pixels of a photograph.
        flat = [each.flatten(1) for each in inputs]
        found["the inputs"] = [each[:, :: -(-each.size(1) // 256)].cpu().double() for each in flat]
    name = next(iter(exam.seen[0].calls), None)
    samples = [run.calls[name][0].samples for run in exam.seen if name in run.calls]
    if all(each is not None for each in samples):
        found[f"what {name or 'the model'}, the first norm layer, is given,"] = samples
    return found


def _shuffled_share(samples: Tensor, batch: Tensor, order: Tensor) -> float:
    return _intraclass(samples[order], batch, int(batch.max()) + 1)


def _intraclass(samples: Tensor, batch: Tensor, batches: int) -> float:
    """The share of the variance that is between batches: an analysis of variance, the median over channels."""
    sizes = torch.bincount(batch, minlength=batches).double()[:, None]
    means = torch.zeros(batches, samples.size(1), dtype=samples.dtype).index_add_(0, batch, samples) / sizes
    within = (samples - means[batch]).square().sum(0) / max(1, len(samples) - batches)
    between = (sizes * (means - samples.mean(0)).square()).sum(0) / (batches - 1)
    size = (len(samples) - float(sizes.square().sum()) / len(samples)) / (batches - 1)
    variance = (between - within) / size
    return float((variance / (variance + within)).nanmedian().nan_to_num())


def _permuted(statistic, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.tensor([statistic(torch.randperm(count, generator=generator)) for _ in range(_PERMUTATIONS)])


def _integer_labels(exam: Exam) -> list[Tensor] | None:
    """The labels of the batches, where each sample has one."""
    labels = [batch.targets for batch in exam.batches]
    if all(isinstance(each, Tensor) and each.dim() == 1 and not each.is_floating_point() for each in labels):
        return [each.cpu() for each in labels]
    return None


def _counts(exam: Exam) -> dict[str, Tensor]:
    """How many values a channel each call of a layer had that normalises by the batch."""
    found: dict[str, list[int]] = {}
    for name, layer in exam.watch.norms.items():
        if isinstance(layer, FullNorm) or name in exam.watch.kept:
            continue
        counts = [call.count for run in exam.seen for call in run.calls.get(name, []) if call.count]
        if counts:
            found[name] = torch.tensor(counts)
    return found


CHECKS = (one_value, tiny, by_batch_at_inference, by_batch_in_eval, representative, memorised)
