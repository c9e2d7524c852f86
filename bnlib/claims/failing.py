"""Claims tested in chapter 7, why BN fails."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch

from bnlib.claims.claim import Claim, Effects, Results, final_values
from bnlib.claims.thresholds import COMPARABLE, TIMES, WORKS
from bnlib.experiments.failing import evaluation_statistics, placement
from bnlib.models import mlp


def _last_epoch_losses(results: Results) -> Effects:
    found = {size: results("failing.published_examples", "BN, ReLU", "printed", size, 1.0) for size in (4, 32)}
    return {f"mean of the last epoch's losses, batches of {size}": row["last_epoch_mean"].ravel()
            for size, row in found.items()}  # fmt: skip


def _fluctuations_in_the_first_epochs(results: Results) -> Effects:
    return dict(_first_program())


@cache
def _first_program() -> Effects:
    """Run the answer's first program for ten epochs, with BN and without; return how the losses of an epoch deviate."""
    found: Effects = {}
    for norm, size in itertools.product(("batch_norm", None), (4, 32)):
        deviations = []
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            data, labels = torch.randn(100, 10, generator=generator), torch.randn(100, 1, generator=generator)
            net = mlp((10, 20, 1), norm, seed=seed)
            optimiser, losses = torch.optim.Adam(net.parameters(), lr=1e-3), []
            for _ in range(10):
                for x, y in zip(data.split(size), labels.split(size), strict=True):
                    loss = (net(x) - y).square().mean()
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    losses.append(loss.item())
            deviations.append(np.reshape(losses, (10, -1)).std(1).mean())
        name = "with BN" if norm else "without BN"
        found[f"deviation of the losses of an epoch, {name}, batches of {size}"] = np.array(deviations)
    return found


def _ratio_of_fluctuations(e: Effects, name: str) -> float:
    """Return the deviation at batches of 4 over that at 32, medians."""
    four, many = (e[f"deviation of the losses of an epoch, {name}, batches of {size}"] for size in (4, 32))
    return float(np.median(four) / np.median(many))


def _error_by_micro_batch(results: Results) -> Effects:
    return {
        f"test error, statistics of {m} samples, %": 100
        * results("failing.evaluation_statistics", "batch norm", evaluation_statistics.LARGE_BATCH, m, 0.1)["precise"][
            :, -1, 1
        ]
        for m in (2, 8, 16, 256)
    }


def _placement_differences(results: Results) -> Effects:
    found: Effects = {}
    for depth in placement.DEPTHS:
        best = [
            min(
                (
                    final_values(results("failing.placement", where, depth, lr), "test_error")
                    for lr in placement.LEARNING_RATES
                ),
                key=np.median,
            )
            for where in ("after", "before")
        ]
        found[f"test error with ReLU first less that with BN first, {depth} layer{'s' * (depth > 1)}, points"] = 100 * (
            best[0] - best[1]
        )
    small = [final_values(results("failing.placement", where, 1, 0.03), "train_loss") for where in ("after", "before")]
    found["training loss with ReLU first less that with BN first, one layer, nats"] = small[0] - small[1]
    own = [
        results("failing.published_examples", name, "printed", 32, 1.0)["last_epoch_mean"].ravel()
        for name in ("ReLU, BN", "BN, ReLU")
    ]
    found["loss of the answer's program with ReLU first less that with BN first"] = own[0] - own[1]
    return found


def _error_by_initial_gamma(results: Results) -> Effects:
    return {
        f"test error, gamma {g:g}, %": 100 * results("failing.initial_gamma", "BN, ReLU", g)["test_error"]
        for g in (0.0, 1.0)
    }


def _first_gradient_and_error_at_gamma_0(results: Results) -> Effects:
    dead, behind = (results("failing.initial_gamma", name, 0.0) for name in ("BN, ReLU", "ReLU, BN"))
    return {
        "gradient of gamma in the first step, BN before ReLU": dead["gamma_gradient"],
        "test error, gamma 0, BN after ReLU, %": 100 * behind["test_error"],
    }


def _costs_errors(e: Effects, size: int) -> bool:
    names = [f"test error, statistics of {m} samples, %" for m in (size, 256)]
    return np.median(e[names[0]]) > np.median(e[names[1]]) + COMPARABLE


def _errors_by_evaluation_statistics(results: Results) -> Effects:
    row = results("failing.evaluation_statistics", "batch norm", 256, 256, 0.1)
    place = evaluation_statistics.MOMENTA.index(0.01)
    return {
        "test error, running averages, momentum 0.01, 150 steps, %": 100 * row["running"][:, -1, place, 1],
        "test error, recomputed statistics, %": 100 * row["precise"][:, -1, 1],
    }


def _residual_error_by_initial_gamma(results: Results) -> Effects:
    return {
        f"test error, residual, gamma {g:g}, %": 100 * results("failing.initial_gamma", "residual", g)["test_error"]
        for g in (0.0, 1.0)
    }


CLAIMS = (
    Claim(
        "failing-erratic", "failing2025", "small batch sizes, code example 1",
        "In the answer's first program, the losses of batches of 4 are more erratic than those of batches of 32.",
        "07_why_is_my_bn_failing#small-batches", _fluctuations_in_the_first_epochs,
        (("in the first ten epochs, the median deviation of the losses within an epoch is more than twice as large "
          "with batches of 4 as with batches of 32",
          lambda e: _ratio_of_fluctuations(e, "with BN") > TIMES),),
        quantifier="tendency",
        note="In the last epochs this is not so in absolute units, because the losses with batches of 4 are smaller "
        "by then. The program cuts 100 samples into batches of 32, so the last batch has only 4.",
    ),
    Claim(
        "failing-erratic-cause", "failing2025", "small batch sizes, code example 1",
        "The losses of small batches are erratic because of the noise in the statistics of BN.",
        "07_why_is_my_bn_failing#small-batches", _fluctuations_in_the_first_epochs,
        (("without BN, the median deviation of the losses within an epoch is less than twice as large with batches of "
          "4 as with batches of 32",
          lambda e: _ratio_of_fluctuations(e, "without BN") < TIMES),),
        quantifier="always",
        note="Without BN, the losses of small batches fluctuate as much, because each loss is the mean over few "
        "samples.",
    ),
    Claim(
        "failing-less-efficient", "failing2025", "small batch sizes, code example 1",
        "In the answer's first program, training converges less well with batches of 4 than with batches of 32.",
        "07_why_is_my_bn_failing#small-batches", _last_epoch_losses,
        (("the median of the mean loss in the last epoch is larger with batches of 4",
          lambda e: np.median(e["mean of the last epoch's losses, batches of 4"])
          > np.median(e["mean of the last epoch's losses, batches of 32"])),),
        quantifier="tendency",
        note="We ran the program as printed, with 20 seeds. For each seed, batches of 4 end at the lower loss. They "
        "take 25 steps per epoch, and batches of 32 take 4.",
    ),
    Claim(
        "failing-below-sixteen", "failing2025", "small batch sizes",
        "With batches below 16 or 8, the statistics of BN become so noisy that training is unstable or fails.",
        "07_why_is_my_bn_failing#small-batches", _error_by_micro_batch,
        (("statistics of 2 samples increase the median test error by more than 2 points over statistics of 256",
          lambda e: _costs_errors(e, 2)),
         ("statistics of 8 samples increase it by more than 2 points", lambda e: _costs_errors(e, 8)),
         ("statistics of 16 samples increase it by more than 2 points", lambda e: _costs_errors(e, 16))),
        quantifier="tendency",
        note="Each step takes 256 digits; only the number of samples behind the statistics of BN changes. The network "
        "has two hidden layers.",
    ),
    Claim(
        "failing-relu-first", "failing2025", "placement, code example 2",
        "ReLU before BN typically performs worse than BN before ReLU.",
        "07_why_is_my_bn_failing#before-or-after-the-relu", _placement_differences,
        (("at the best learning rate of each order, the median test error is over 2 points larger with ReLU before "
          "BN, with 1, 2, 4 and 8 layers",
          lambda e: all(np.median(e[n]) > COMPARABLE for n in e if n.startswith("test error"))),
         ("with one layer and a learning rate of 0.03, the median training loss is larger with ReLU before BN",
          lambda e: np.median(e["training loss with ReLU first less that with BN first, one layer, nats"]) > 0),
         ("in the answer's own program with batches of 32, the median loss is larger with ReLU before BN",
          lambda e: np.median(e["loss of the answer's program with ReLU first less that with BN first"]) > 0)),
        quantifier="tendency",
        note="On digits, the test errors of the two orders are comparable.",
    ),
    Claim(
        "failing-gamma-zero", "failing2025", "initialisation, code example 3",
        "Starting gamma at 0 severely hinders learning in a network of a linear layer, BN, ReLU and a linear layer.",
        "07_why_is_my_bn_failing#gamma-is-zero", _error_by_initial_gamma,
        (("with gamma 0, the test error on digits ends above 80 % for every seed",
          lambda e: e["test error, gamma 0, %"].min() > 80),
         ("with gamma 1, the test error on digits ends below 10 % for every seed",
          lambda e: e["test error, gamma 1, %"].max() < 10)),
        quantifier="tendency",
    ),
    Claim(
        "failing-gamma-reason", "failing2025", "initialisation, after code example 3",
        "Starting gamma at 0 hinders learning because BN then does not scale its input.",
        "07_why_is_my_bn_failing#gamma-is-zero", _first_gradient_and_error_at_gamma_0,
        (("gamma has a gradient other than 0 in the first step, so only the scale is missing",
          lambda e: e["gradient of gamma in the first step, BN before ReLU"].max() > 0),
         ("with BN after the ReLU, gamma 0 leaves the test error above 80 %, too",
          lambda e: e["test error, gamma 0, BN after ReLU, %"].min() > 80)),
        quantifier="always",
        note="With gamma and beta at 0, every input of the ReLU is 0, where PyTorch's derivative of ReLU is 0, so no "
        "gradient passes. The missing scale is not the cause.",
    ),
    Claim(
        "failing-early-layers", "failing2025", "placement",
        "In early layers, the values are less coupled with the parameters, so normalisation matters less there.",
        "07_why_is_my_bn_failing",
        quantifier="tendency",
        untested_because="A test would need networks with BN in their early layers only, and in their late layers "
        "only.",
    ),
    Claim(
        "wu-precise", "wu2021", "section 3",
        "Running averages can be far from the statistics of the data; recomputing the statistics cures this.",
        "07_why_is_my_bn_failing#running-averages", _errors_by_evaluation_statistics,
        (("the median test error with running averages is more than three times that with recomputed statistics",
          lambda e: np.median(e["test error, running averages, momentum 0.01, 150 steps, %"])
          > 3 * np.median(e["test error, recomputed statistics, %"])),),
        quantifier="tendency",
        note="Tested at a momentum of 0.01, where the initial statistics still weigh 22 % after 150 steps. At "
        "PyTorch's default of 0.1, running averages cost next to nothing.",
    ),
    Claim(
        "goyal-zero", "goyal2017", "section 5.1",
        "Starting gamma at 0 in the last norm of each residual branch is a good initialisation.",
        "07_why_is_my_bn_failing#gamma-is-zero", _residual_error_by_initial_gamma,
        (("with gamma 0, the test error of a residual network on digits ends below 6 % for every seed",
          lambda e: e["test error, residual, gamma 0, %"].max() < WORKS),
         ("with gamma 0, the median test error is at most 2 points above that with gamma 1", lambda e: np.median(
             e["test error, residual, gamma 0, %"]) < np.median(e["test error, residual, gamma 1, %"]) + COMPARABLE)),
        quantifier="tendency",
    ),
    Claim(
        "failing-deeper", "failing2025", "placement",
        "In deeper layers, BN is more effective, but also more fragile if the batch is small.",
        "07_why_is_my_bn_failing",
        quantifier="tendency",
        untested_because="A test would need networks with BN in their early or in their late layers only, at several "
        "batch sizes.",
    ),
)  # fmt: skip
