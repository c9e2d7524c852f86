"""Claims tested in chapter 9, the alternatives to BN."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from bnlib import probes
from bnlib.claims.claim import Claim, Effects, Results, effects_with
from bnlib.claims.thresholds import COMPARABLE, EXACT, FAR, TIMES
from bnlib.experiments.alternatives import batch_sizes, batch_sizes_convolutional, newer_norms
from bnlib.experiments.alternatives.newer_norms_convolutional import LEARNING_RATES as IMAGE_RATES
from bnlib.experiments.alternatives.small_transformer import learning_rates as transformer_rates
from bnlib.norm import NORMS, BatchRenorm


def _batch_and_mode_dependence(results: Results) -> Effects:
    torch.manual_seed(0)
    found, x = {}, torch.randn(8, 4)
    for name in ("layer_norm", "weight_norm", "cosine", "batch_norm"):
        model = NORMS[name].apply(torch.nn.Linear(4, 8))
        ways = [float(probe(model, x)) for probe in (probes.batch_dependence, probes.train_eval_difference)]
        found[f"{NORMS[name].title}: largest change of an output by other samples or the mode"] = max(ways)
    return found


def _spread_of_norms_at_best_rates(results: Results) -> Effects:
    found = {}
    for steps, budget in ((360, batch_sizes.EQUAL_STEPS), (25, batch_sizes.EQUAL_SAMPLES)):
        errors = [
            _errors_at_best_rate(results, norm, "shuffled", 256, budget)
            for norm in batch_sizes.NORMS
            if norm != "without normalisation, PyTorch init"
        ]
        worst, best = max(errors, key=np.median), min(errors, key=np.median)
        found[f"largest less smallest error of the norms, {steps} steps, points"] = worst - best
    return found


def _errors_by_number_of_steps(results: Results) -> Effects:
    names = {"BN": "batch norm", "without normalisation": "without normalisation"}
    return {
        f"test error after {steps} steps of 256, {title}, %": _errors_at_best_rate(
            results, norm, "shuffled", 256, budget
        )
        for steps, budget in ((25, batch_sizes.EQUAL_SAMPLES), (360, batch_sizes.EQUAL_STEPS))
        for title, norm in names.items()
    }


def _renorm_dependence_on_running_mean(results: Results) -> Effects:
    layer = BatchRenorm(1, r_max=100.0, d_max=100.0, affine=False)
    x = torch.randn(16, 1, generator=torch.Generator().manual_seed(0))
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    first = layer(x).detach()
    layer.load_state_dict(state)
    layer.running_mean.fill_(1.0)
    return {"change of the output in train mode by another running mean": (layer(x) - first).abs().max().item()}


def _errors_at_best_rate(results: Results, norm: str, construction: str, batch_size: int, budget: str) -> np.ndarray:
    """Return the test errors in per cent of all seeds at the best learning rate."""
    points = batch_sizes.POINTS[batch_size] / batch_sizes.EPOCHS[batch_size]
    point = round(batch_sizes.BUDGETS[budget][batch_size] * points)
    table = []
    for lr in batch_sizes.LEARNING_RATES:
        curves = results("alternatives.batch_sizes", norm, construction, batch_size, lr)["test_error"]
        table.append(np.nan_to_num(curves[:, min(point, curves.shape[1] - 1)], nan=0.9))
    return 100 * table[batch_sizes.best_learning_rate(np.array(table))]


def _renorm_errors_in_small_batches(results: Results) -> Effects:
    found: Effects = {}
    for norm in ("batch norm", "Batch Renorm"):
        for b in (1, 4):
            found[f"test error, batches of {b}, {norm}, %"] = _errors_at_best_rate(
                results, norm, "shuffled", b, batch_sizes.EQUAL_SAMPLES
            )
        found[f"test error, one label, batches of 64, {norm}, %"] = _errors_at_best_rate(
            results, norm, "one label", 64, batch_sizes.EQUAL_STEPS
        )
    found["test error, batches of 64, Batch Renorm, %"] = _errors_at_best_rate(
        results, "Batch Renorm", "shuffled", 64, batch_sizes.EQUAL_SAMPLES
    )
    return found


def _renorm_dependence_on_other_samples(results: Results) -> Effects:
    generator = torch.Generator().manual_seed(0)
    x, other, above = torch.randn(3, 8, 4, generator=generator, dtype=torch.float64)
    other[0], found = x[0], []
    for batch in (x, other):
        layer = BatchRenorm(4, r_max=1e6, d_max=1e6, affine=False, dtype=torch.float64)
        batch = batch.clone().requires_grad_()
        out = layer(batch)
        out.backward(above)
        found.append((out[0].detach(), batch.grad[0]))
    (out, grad), (out_2, grad_2) = found
    return {
        "change of a sample's output by other samples in the batch": (out - out_2).abs().max().item(),
        "change of its gradient by other samples in the batch": (grad - grad_2).abs().max().item(),
    }


def _group_norm_errors(results: Results) -> Effects:
    found: Effects = {}
    for norm, b in itertools.product(("batch norm", "group norm"), (1, 16)):
        table = []
        for lr in batch_sizes_convolutional.LEARNING_RATES:
            curves = results("alternatives.batch_sizes_convolutional", norm, "shuffled", b, lr)["test_error"]
            when = batch_sizes_convolutional.EPOCHS[b] if b == 1 else batch_sizes_convolutional.COMPARED_EPOCHS[b]
            point = round(when * batch_sizes_convolutional.POINTS[b] / batch_sizes_convolutional.EPOCHS[b])
            table.append(np.nan_to_num(curves[:, min(point, curves.shape[1] - 1)], nan=0.9))
        found[f"test error, batches of {b}, {norm}, %"] = 100 * table[batch_sizes.best_learning_rate(np.array(table))]
    return found


def _ghost_batch_norm_errors(results: Results) -> Effects:
    found: Effects = {}
    for steps, budget in ((25, batch_sizes.EQUAL_SAMPLES), (360, batch_sizes.EQUAL_STEPS)):
        point = round(batch_sizes.BUDGETS[budget][256])
        rates = newer_norms.LEARNING_RATES[256]
        curves = [results("alternatives.newer_norms", "Ghost BN", 256, lr)["test_error"] for lr in rates]
        found[f"test error after {steps} steps of 256, Ghost BN, %"] = _lowest([_at(each, point) for each in curves])
        found[f"test error after {steps} steps of 256, BN, %"] = _errors_at_best_rate(
            results, "batch norm", "shuffled", 256, budget
        )
    return found


def _errors_on_single_images(results: Results) -> Effects:
    found = dict(_group_norm_errors(results))
    for norm, b in itertools.product(("FRN", "EvoNorm-S0"), (1, 16)):
        name = "alternatives.newer_norms_convolutional"
        table = [_at(results(name, norm, "shuffled", b, lr)["test_error"], -1) for lr in IMAGE_RATES[b]]
        found[f"test error, batches of {b}, {norm}, %"] = _lowest(table)
    return found


def _transformer_errors(results: Results) -> Effects:
    norms = {"layer norm": "layer norm", "RMSNorm": "RMSNorm", "dynamic tanh": "dynamic tanh, alpha 0.5"}
    name = "alternatives.small_transformer"
    tables = {
        title: [_at(results(name, norm, lr)["test_error"], -1) for lr in transformer_rates(norm)]
        for title, norm in norms.items()
    }
    usual = transformer_rates("layer norm")[batch_sizes.best_learning_rate(np.array(tables["layer norm"]))]
    same = 100 * _at(results(name, norms["dynamic tanh"], usual)["test_error"], -1)
    found = {f"test error at its best rate, {title}, %": _lowest(table) for title, table in tables.items()}
    return found | {"test error at the best rate of layer norm, dynamic tanh, %": same}


def _at(curves: np.ndarray, point: int) -> np.ndarray:
    """Return the errors (shares) of all seeds at a checkpoint; 0.9 for runs that had diverged."""
    return np.nan_to_num(curves[:, min(point, curves.shape[1] - 1)], nan=0.9)


def _lowest(table: list[np.ndarray]) -> np.ndarray:
    """Return the errors in per cent of all seeds at the best learning rate."""
    return 100 * table[batch_sizes.best_learning_rate(np.array(table))]


CLAIMS = (
    Claim(
        "irpan-contracts", "irpan2017", "why haven't people ditched batch norm",
        "Layer norm, weight norm and cosine normalisation keep both contracts that BN breaks: batch independence, and "
        "train = test.",
        "09_alternatives#what-each-one-keeps", _batch_and_mode_dependence,
        (("with each of these three norms, neither the other samples in the batch nor the mode changes an output by "
          "more than 10⁻⁵ of its size",
          lambda e: max(v.max() for n, v in e.items() if not n.startswith("Batch")) < 1e-5),
         ("with BN, they change an output by more than 1 %",
          lambda e: min(v.min() for n, v in e.items() if n.startswith("Batch")) > 1e-2)),
        quantifier="always",
        exact_because="a property of the layers, whatever their weights",
    ),
    Claim(
        "irpan-tuned", "irpan2017", "why haven't people ditched batch norm",
        "If they are tuned well, the normalisation methods differ little.",
        "09_alternatives#the-contest", _spread_of_norms_at_best_rates,
        (("after 360 steps with batches of 256, the median test errors of all norms at their best learning rates are "
          "within 2 points",
          lambda e: np.median(e["largest less smallest error of the norms, 360 steps, points"]) < COMPARABLE),
         ("after 25 steps with batches of 256, the median test errors of all norms are within 2 points, too",
          lambda e: np.median(e["largest less smallest error of the norms, 25 steps, points"]) < COMPARABLE)),
        quantifier="tendency",
        note="Tested with three fully connected layers on digits. With batches of one sample, the differences are "
        "large: BN has an error of 91 %, and Batch Renorm of 29 %.",
    ),
    Claim(
        "irpan-fast", "irpan2017", "why haven't people ditched batch norm",
        "If everything is done right, models with BN train a lot faster.",
        "09_alternatives#the-contest", _errors_by_number_of_steps,
        (("after 25 steps with batches of 256, at the best learning rate of each, the test error with BN is less than "
          "half of that without normalisation, for every seed",
          lambda e: e["test error after 25 steps of 256, BN, %"].max()
          < e["test error after 25 steps of 256, without normalisation, %"].min() / TIMES),),
        quantifier="tendency",
        note="Tested on digits with He initialisation. After 360 steps, the two errors are close.",
    ),
    Claim(
        "irpan-renorm", "irpan2017", "paragraph on Batch Renorm, withdrawn by the author",
        "Batch Renorm uses its moving averages at test time only.",
        "09_alternatives#which-values-are-normalised-together", _renorm_dependence_on_running_mean,
        (("in train mode, the output of Batch Renorm is the same whatever the running mean is",
          lambda e: e["change of the output in train mode by another running mean"].max() < 1e-6),),
        quantifier="always",
        exact_because="one output that changes is a counterexample",
        note="A correction in the post withdrew this claim in June 2017.",
    ),
    Claim(
        "failing-recurrent", "failing2025", "placement, last paragraph",
        "In recurrent networks, BN performs worse, because statistics per time step disrupt the dependencies between "
        "time steps.",
        "09_alternatives#exercise-4-sentences",
        quantifier="tendency",
        untested_because="A test would need a task with dependencies over time. Chapter 9 shows which values enter "
        "such statistics, but not what these statistics cost.",
    ),
    Claim(
        "renorm-small", "ioffe2017", "abstract",
        "With small or dependent mini-batches, Batch Renorm performs substantially better than BN.",
        "09_alternatives#the-contest", _renorm_errors_in_small_batches,
        (("with batches of 1, the test error of Batch Renorm is less than half of that of BN, for every seed",
          lambda e: TIMES * e["test error, batches of 1, Batch Renorm, %"].max()
          < e["test error, batches of 1, batch norm, %"].min()),
         ("with batches of 4, a size that the paper uses, the same holds",
          lambda e: TIMES * e["test error, batches of 4, Batch Renorm, %"].max()
          < e["test error, batches of 4, batch norm, %"].min()),
         ("with batches of 64 samples of one label, the same holds",
          lambda e: TIMES * e["test error, one label, batches of 64, Batch Renorm, %"].max()
          < e["test error, one label, batches of 64, batch norm, %"].min())),
        quantifier="tendency",
        note="Tested with three fully connected layers on digits, without the paper's schedule for the clipping "
        "limits.",
    ),
    Claim(
        "renorm-retains", "ioffe2017", "abstract",
        "With small or dependent mini-batches, Batch Renorm keeps the benefits of BN: its errors come close to those "
        "with large batches.",
        "09_alternatives#the-contest", effects_with(_renorm_errors_in_small_batches, "Batch Renorm"),
        (("with batches of 1, the median test error of Batch Renorm is at most 2 points above that with shuffled "
          "batches of 64",
          lambda e: np.median(e["test error, batches of 1, Batch Renorm, %"])
          - np.median(e["test error, batches of 64, Batch Renorm, %"]) < COMPARABLE),
         ("with batches of 4, a size that the paper uses, the same holds",
          lambda e: np.median(e["test error, batches of 4, Batch Renorm, %"])
          - np.median(e["test error, batches of 64, Batch Renorm, %"]) < COMPARABLE),
         ("with batches of 64 samples of one label, the same holds",
          lambda e: np.median(e["test error, one label, batches of 64, Batch Renorm, %"])
          - np.median(e["test error, batches of 64, Batch Renorm, %"]) < COMPARABLE)),
        quantifier="tendency",
        note="The paper uses images and batches of 4 and 32. In our network, a batch of one sample has one value per "
        "channel, so no gradient passes.",
    ),
    Claim(
        "renorm-individual", "ioffe2017", "abstract",
        "With Batch Renorm, outputs depend on the individual example and not on the mini-batch, in training and at "
        "inference.",
        "09_alternatives#one-gradient-for-all", _renorm_dependence_on_other_samples,
        (("if Batch Renorm clips nothing, the other samples in the batch change the output for a sample by less than "
          "10⁻⁹",
          lambda e: e["change of a sample's output by other samples in the batch"].max() < EXACT),),
        quantifier="always",
        exact_because="an identity, true of all inputs",
        note="The gradient still depends on the other samples in the batch.",
    ),
    Claim(
        "wu-groups", "wu2018", "abstract",
        "With the smallest batches, group norm is better than BN.",
        "09_alternatives#images", _group_norm_errors,
        (("with one image per batch, the median test error with group norm is less than half of that with BN",
          lambda e: TIMES * np.median(e["test error, batches of 1, group norm, %"])
          < np.median(e["test error, batches of 1, batch norm, %"])),),
        quantifier="tendency",
        note="Tested with a small convolutional network on digits. The paper uses ResNet-50 on ImageNet, and says "
        "this of networks in general.",
    ),
    Claim(
        "wu-groups-usual", "wu2018", "abstract",
        "At usual batch sizes, group norm is comparable with BN.",
        "09_alternatives#images", _group_norm_errors,
        (("with batches of 16, the median test errors of group norm and BN are within 2 points", lambda e: abs(
             np.median(e["test error, batches of 16, group norm, %"])
             - np.median(e["test error, batches of 16, batch norm, %"])) < COMPARABLE),),
        quantifier="tendency",
        note="Tested with a small convolutional network on digits. The paper uses ResNet-50 on ImageNet, and says "
        "this of networks in general.",
    ),
    Claim(
        "lian-batch-renorm", "lian2019", "section 2",
        "Batch Renorm rests, like BN, on the assumption that the statistics of a batch approximate those of all data.",
        "09_alternatives#the-contest", effects_with(_renorm_errors_in_small_batches, "Batch Renorm"),
        (("with batches of 1, the median test error of Batch Renorm is more than 5 points above that with shuffled "
          "batches of 64",
          lambda e: np.median(e["test error, batches of 1, Batch Renorm, %"])
          > np.median(e["test error, batches of 64, Batch Renorm, %"]) + FAR),
         ("with batches of 64 samples of one label, the same holds",
          lambda e: np.median(e["test error, one label, batches of 64, Batch Renorm, %"])
          > np.median(e["test error, batches of 64, Batch Renorm, %"]) + FAR)),
        quantifier="tendency",
        note="Tested with three fully connected layers on digits, without the schedule of the Batch Renorm paper.",
    ),
    Claim(
        "irpan-other-tricks", "irpan2017", "on the two contracts",
        "Almost no other trick of optimisation breaks both contracts, batch independence and train = test.",
        "09_alternatives",
        quantifier="tendency",
        untestable_because="The claim names no list of tricks, and no experiment can go through all of them.",
    ),
    Claim(
        "irpan-layer-norm", "irpan2017", "why haven't people ditched batch norm",
        "Layer norm makes more sense with recurrent networks, and does not always work with convolutional layers.",
        "09_alternatives",
        quantifier="tendency",
        untested_because="The post calls this hearsay. A test would need recurrent tasks and deep convolutional "
        "networks.",
    ),
    Claim(
        "failing-rnn-norms", "failing2025", "placement, last paragraph",
        "In recurrent networks, layer norm or group norm is often preferable to BN.",
        "09_alternatives#exercise-4-sentences",
        quantifier="tendency",
        untested_because="A test would need a task with dependencies over time, trained with each of the norms.",
    ),
    Claim(
        "hoffer-ghost", "hoffer2017", "abstract",
        "Ghost Batch Norm reduces the errors that large batches cause, without more updates.",
        "09_alternatives#the-contest", _ghost_batch_norm_errors,
        tuple((f"after {steps} steps with batches of 256, at the best learning rate of each, the median test error "
               "with Ghost Batch Norm is below that with BN",
               lambda e, steps=steps: np.median(e[f"test error after {steps} steps of 256, Ghost BN, %"])
               < np.median(e[f"test error after {steps} steps of 256, BN, %"])) for steps in (25, 360)),
        quantifier="tendency",
        stand_in="digits, batches of 256 and virtual batches of 16 in place of CIFAR-10 and CIFAR-100, batches of "
        "4,096 and virtual batches of 128",
        note="The medians differ by two test images after 25 steps, and by three after 360 steps.",
    ),
    Claim(
        "zhang-rms-norm", "zhangsennrich2019", "abstract",
        "RMSNorm performs comparably with layer norm.",
        "09_alternatives#can-rmsnorm-or-dynamic-tanh-replace-layer-norm",
        effects_with(_transformer_errors, "its best rate, layer norm", "RMSNorm"),
        (("in a small transformer, the median test errors at the best learning rate of each are within 2 points",
          lambda e: abs(
             np.median(e["test error at its best rate, RMSNorm, %"])
             - np.median(e["test error at its best rate, layer norm, %"])) < COMPARABLE),),
        quantifier="tendency",
        stand_in="a transformer on rows of digits in place of translation and other tasks",
    ),
    Claim(
        "singh-frn", "singh2020", "abstract",
        "Filter Response Normalization (FRN) outperforms BN with small and with large batches.",
        "09_alternatives#images", effects_with(_errors_on_single_images, "batch norm", "FRN"),
        tuple((f"with batches of {b}, at the best learning rate of each, the median test error with FRN is below that "
               "with BN",
               lambda e, b=b: np.median(e[f"test error, batches of {b}, FRN, %"])
               < np.median(e[f"test error, batches of {b}, batch norm, %"])) for b in (1, 16)),
        quantifier="tendency",
        stand_in="a small convolutional network on digits in place of ImageNet and COCO",
    ),
    Claim(
        "liu-evonorm", "liu2020", "abstract",
        "EvoNorms outperform layers with BN and with group norm in many cases.",
        "09_alternatives#images", effects_with(_errors_on_single_images, "batch norm", "group norm", "EvoNorm"),
        tuple((f"with batches of {b}, the median test error with EvoNorm-S0 is below those with BN and with group norm",
               lambda e, b=b: np.median(e[f"test error, batches of {b}, EvoNorm-S0, %"])
               < min(np.median(e[f"test error, batches of {b}, {norm}, %"]) for norm in ("batch norm", "group norm")))
              for b in (1, 16)),
        quantifier="sometimes",
        stand_in="EvoNorm-S0 on digits in place of all EvoNorms on ImageNet and COCO",
    ),
    Claim(
        "zhu-dynamic-tanh", "zhu2025", "abstract",
        "Transformers with dynamic tanh in place of their norms match or exceed transformers with norms.",
        "09_alternatives#can-rmsnorm-or-dynamic-tanh-replace-layer-norm",
        effects_with(_transformer_errors, "its best rate, layer norm", "its best rate, dynamic tanh"),
        (("at the best learning rate of each, the median test error with dynamic tanh is at most 2 points above that "
          "with layer norm",
          lambda e: np.median(e["test error at its best rate, dynamic tanh, %"])
          - np.median(e["test error at its best rate, layer norm, %"]) < COMPARABLE),),
        quantifier="tendency",
        stand_in="a transformer on rows of digits in place of large ones on images, speech and text",
    ),
    Claim(
        "zhu-no-tuning", "zhu2025", "abstract",
        "Dynamic tanh mostly needs no other hyperparameters than the norm that it replaces.",
        "09_alternatives#can-rmsnorm-or-dynamic-tanh-replace-layer-norm",
        effects_with(_transformer_errors, "layer norm"),
        (("at the best learning rate of layer norm, the median test error with dynamic tanh is at most 2 points above "
          "that with layer norm",
          lambda e: np.median(e["test error at the best rate of layer norm, dynamic tanh, %"])
          - np.median(e["test error at its best rate, layer norm, %"]) < COMPARABLE),),
        quantifier="tendency",
        stand_in="a transformer on rows of digits in place of large ones on images, speech and text",
    ),
)  # fmt: skip
