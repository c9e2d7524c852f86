"""Checks of whether each batch is representative of the data set: its labels and the values of its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from bnlib.doctor.losses import main_output, main_targets
from bnlib.doctor.measurements import Measurements
from bnlib.doctor.report import Finding, make_finding
from bnlib.doctor.structures import tensors
from bnlib.norm import FullNorm

_PERMUTATIONS = 200
_LARGEST_CLASS = 255
"""Masks with larger values, such as the words of a text, are not taken for classes."""


def batches_not_representative(measurements: Measurements) -> Iterator[Finding]:
    """Find batches that do not look like the data set: few labels each, sorted, or one kind of input each."""
    if measurements.inference:
        return
    found = _few_labels_per_batch(measurements) or _one_label_in_all_batches(measurements)
    # If there are domains, the user knows that batches differ; another check reports the effect.
    if found is None and not measurements.by_domain:
        found = _inputs_differ_between_batches(measurements)
    if found is None:
        return
    # A few batches do not stand for all of them.
    measurements.compares_all = True
    evidence, severity = found.evidence + _losses(measurements), found.severity
    if measurements.eval_worse_than_train:
        severity = "error"
    elif all(isinstance(measurements.norm_layers[name], FullNorm) for name in measurements.statistics):
        evidence, severity = f"{evidence} FullNorm is designed for such batches.", "note"
    yield replace(found, evidence=evidence, severity=severity)


def largest_share_between_batches(measurements: Measurements) -> tuple[str, float]:
    """Return where the share of the variance that is between batches is largest, and the share.

    The share is the intraclass correlation: 0 for random batches of any size. In batches of one label it is 0.4 for the
    pixels of the digits and 0.1 to 0.6 for the input of the first norm layer; with two labels it is half of that.
    The share returned is 0 unless it is above 0.2 and above that of 200 random orders of the samples.
    """
    best, values = ("", 0.0), _values_by_sample(measurements)
    if not values:
        measurements.skipped["whether each batch holds one kind of sample"] = (
            "it is unknown which values are a sample's"
        )
    for where, parts in values.items():
        sizes = torch.tensor([len(part) for part in parts])
        if len(sizes) < 2 or sizes.max() < 2 or any(part.shape[1:] != parts[0].shape[1:] for part in parts):
            continue
        samples, batch_index = torch.cat(parts), torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        share = _share_between_batches(samples, batch_index)
        measured = share(torch.arange(len(samples)))
        if measured > max(0.2, best[1]) and measured > _on_random_orders(share, len(samples)).max():
            best = where, measured
    return best


def few_of_the_classes(measurements: Measurements) -> str:
    """Return a sentence if the batches hold at most half of the classes of the model's outputs; otherwise nothing.

    Running statistics of all classes are not those of a few, such as the classes of one client of a federated training.
    """
    labels, outputs = _labels(measurements), main_output(measurements.passes_by_batch[0].outputs)
    if labels is None or not isinstance(outputs, Tensor) or outputs.dim() != 2:
        return ""
    seen, classes = len(torch.cat(labels).unique()), outputs.size(1)
    if sum(map(len, labels)) < max(64, 4 * classes) or 2 * seen > classes or classes < 4:
        return ""
    return (
        f" These batches hold {seen} of the model's {classes} classes, as those of one client of a federated training "
        "do, so their statistics need not be those of all classes."
    )


def _losses(measurements: Measurements) -> str:
    if not measurements.has_loss:
        return ""
    scores = measurements.scores_by_mode
    reshuffled = scores["train_reshuffled"]
    shuffled = "" if reshuffled is None else f", and {reshuffled} after the same samples are shuffled"
    return (
        f" In train mode, the loss is {scores['train']} in these batches{shuffled}. In eval mode, the loss is "
        f"{scores['eval']}, and {scores['eval_recomputed']} with statistics recomputed from these batches."
    )


def _few_labels_per_batch(measurements: Measurements) -> Finding | None:
    """Compare the entropy of the labels within a batch with that of the same batches with shuffled labels.

    The entropy is lower by a share of 0.3 if each batch holds 5 of 10 labels, by 0.5 for 3, 0.7 for 2 and 1 for one
    label. If three quarters of each batch are of one class, the share is 0.5, which BN tolerates on the digits.
    """
    labels = _labels(measurements)
    if labels is None or len(labels) < 2:
        return None
    all_labels, classes = torch.cat(labels).unique(return_inverse=True)
    sizes = [len(each) for each in labels]
    batch_index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    entropy = partial(_entropy_within_batches, batch_index=batch_index, shape=(len(sizes), len(all_labels)))
    measured = entropy(classes)
    overall = torch.special.entr(torch.bincount(classes).double() / len(classes)).sum()
    # Random batches have at most the entropy of all labels, so no random orders are needed to decide this.
    if measured > 0.5 * float(overall):
        return None
    chance = _on_random_orders(lambda order: entropy(classes[order]), len(classes))
    # With one label in all or one sample per batch, random batches have no entropy, so nothing can be compared.
    if not chance.mean() > 0.05 or measured >= chance.min():
        return None
    share = 1 - measured / float(chance.mean())
    if share < 0.5:
        return None
    distinct = sum(len(each.unique()) for each in labels) / len(labels)
    text = (
        f"A batch of {sizes[0]} samples has {distinct:.1f} of {len(all_labels)} labels on average. The entropy of the "
        f"labels within a batch is {measured:.2f} nats; random batches of these samples have "
        f"{float(chance.mean()):.2f} nats."
    )
    return make_finding("batches-not-representative", "", "error" if share > 0.9 else "warning", text)


def _one_label_in_all_batches(measurements: Measurements) -> Finding | None:
    """Find batches that all have the same label, perhaps because they are the beginning of sorted data."""
    labels, outputs = _labels(measurements), main_output(measurements.passes_by_batch[0].outputs)
    if labels is None or not isinstance(outputs, Tensor) or outputs.dim() != 2:
        return None
    all_labels = torch.cat(labels)
    # With two classes, one of them may be as rare as fraud is.
    if len(all_labels) < 64 or len(all_labels.unique()) > 1 or outputs.size(1) < 3:
        return None
    text = (
        f"All {len(all_labels)} samples of {len(labels)} batches have label {int(all_labels[0])}, but the model has "
        f"{outputs.size(1)} outputs."
    )
    return make_finding("batches-not-representative", "", "warning", text)


def _inputs_differ_between_batches(measurements: Measurements) -> Finding | None:
    """Compare the values of the samples themselves, before any layer has normalised them."""
    where, share = largest_share_between_batches(measurements)
    if not share:
        return None
    text = (
        f"Of the variance of {where}, {share:.0%} is between batches (median over channels); in random batches this is "
        "0 %. Each batch holds one kind of sample."
    )
    return make_finding("batches-not-representative", "", "warning", text)


def _entropy_within_batches(classes: Tensor, batch_index: Tensor, shape: tuple[int, int]) -> float:
    """Return the entropy of the labels within a batch in nats, averaged over all samples.

    Arguments:
        classes: the class of each sample, shape (N,).
        batch_index: the batch of each sample, shape (N,).
        shape: number of batches and of classes.
    """
    counts = torch.zeros(shape, dtype=torch.double)
    counts.index_put_((batch_index, classes), torch.ones(len(classes), dtype=torch.double), accumulate=True)
    shares = counts / counts.sum(1, keepdim=True)
    return float((torch.special.entr(shares).sum(1) * counts.sum(1)).sum() / len(classes))


def _values_by_sample(measurements: Measurements) -> dict[str, list[Tensor]]:
    """Return values to compare between batches: by description, for each batch a tensor (samples, channels)."""
    found = {}
    first = [next(iter(tensors(batch.inputs)), None) for batch in measurements.batches if batch.size]
    inputs = [each for each in first if isinstance(each, Tensor) and each.is_floating_point() and each.dim() > 1]
    if len(inputs) == len(measurements.batches):
        found["the model's inputs"] = [_some_features(each) for each in inputs]
    found |= _targets_by_sample(measurements)
    passes = measurements.passes_by_batch
    name = next(iter(passes[0].calls), None)
    samples = [run.calls[name][0].sample_means for run in passes if name in run.calls]
    if samples and all(each is not None for each in samples):
        found[f"the input of the first norm layer{f', {name}' if name else ''}"] = [
            _some_features(each) for each in samples
        ]
    return found


def _some_features(values: Tensor) -> Tensor:
    """Return at most 64 values of each sample, which tell as much as all pixels of a photograph; shape (N, at most 64).

    The median over 64 correlations is as precise as the correlations need to be, and costs little.
    """
    flat = values.detach().flatten(1)
    return flat[:, :: -(-flat.size(1) // 64)].cpu().double()


def _targets_by_sample(measurements: Measurements) -> dict[str, list[Tensor]]:
    """Return targets to compare between batches: numbers, or for masks the share of each class in each sample.

    Several labels of a sample, each 0 or 1, are numbers. A single label of a sample is neither, because labels have a
    check of their own.
    """
    targets = [main_targets(batch.targets) for batch in measurements.batches]
    if not all(isinstance(each, Tensor) and each.numel() and not each.is_complex() for each in targets):
        return {}
    if any(len(each) != batch.size for each, batch in zip(targets, measurements.batches, strict=True) if each.dim()):
        return {}
    yes_or_no = all(each.dim() == 2 and bool((each.min() >= 0) & (each.max() < 2)) for each in targets)
    if yes_or_no or all(each.is_floating_point() and each.dim() > 0 for each in targets):
        return {"the targets": [_some_features(each if each.dim() > 1 else each[:, None]) for each in targets]}
    if any(each.is_floating_point() or each.dim() < 2 for each in targets):
        return {}
    if max(int(each.max()) for each in targets) > _LARGEST_CLASS:
        return {}
    return {"the share of each class in the targets of a sample": [_shares_of_classes(each) for each in targets]}


def _shares_of_classes(masks: Tensor) -> Tensor:
    """Return the share of each class among the values of each sample; negative values are a class of their own.

    Arguments:
        masks: integers, shape (N, *).
    """
    count = _LARGEST_CLASS + 2
    classes = masks.detach().flatten(1).long().clamp(min=-1) + 1
    numbers = classes + count * torch.arange(len(classes), device=classes.device)[:, None]
    counts = torch.bincount(numbers.flatten(), minlength=count * len(classes)).view(len(classes), count)
    return counts.cpu().double() / classes.size(1)


def _share_between_batches(samples: Tensor, batch_index: Tensor) -> Callable[[Tensor], float]:
    """Return a function that takes an order of the samples and returns the share of their variance between batches.

    The share is the intraclass correlation, the median over channels, by an analysis of variance.

    Arguments:
        samples: shape (N, channels).
        batch_index: the batch of each sample, shape (N,).
    """
    count, batches = len(samples), int(batch_index.max()) + 1
    sizes = torch.bincount(batch_index, minlength=batches).double()[:, None]
    mean_size = (count - float(sizes.square().sum()) / count) / (batches - 1)
    centred = samples - samples.mean(0)
    total = centred.square().sum(0)

    def share(order: Tensor) -> float:
        placed = torch.empty_like(batch_index)
        placed[order] = batch_index
        sums = centred.new_zeros(batches, centred.size(1)).index_add_(0, placed, centred)
        between = (sums.square() / sizes).sum(0)
        within = (total - between).clamp(min=0) / max(1, count - batches)
        variance = (between / (batches - 1) - within) / mean_size
        return float((variance / (variance + within)).nanmedian().nan_to_num())

    return share


def _on_random_orders(statistic: Callable[[Tensor], float], count: int) -> Tensor:
    """Return the statistic on 200 random permutations of ``count`` samples, shape (200,)."""
    generator = torch.Generator().manual_seed(0)
    return torch.tensor([statistic(torch.randperm(count, generator=generator)) for _ in range(_PERMUTATIONS)])


def _labels(measurements: Measurements) -> list[Tensor] | None:
    """Return the labels of each batch if each sample has one integer label; otherwise None."""
    labels = [main_targets(batch.targets) for batch in measurements.batches]
    if all(isinstance(each, Tensor) and each.dim() == 1 and not each.is_floating_point() for each in labels):
        return [each.cpu() for each in labels]
    return None
