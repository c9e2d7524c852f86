"""Each line of code in the symptom table runs, is true for a broken network, and false for a healthy one."""

import re
import warnings
from types import SimpleNamespace

import pytest
import torch
from doctor_examples import batches, digits, displaced, negative, train, trained
from more_cases import MORE_CASES
from more_examples import BatchNormalization, Twice, behind_dropout, exposures, in_one_process, without_counters
from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_eval
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint_sequential
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import bnlib
from bnlib import models, samplers
from bnlib.doctor import ADVICE, SYMPTOM_GROUPS, SYMPTOM_PARTS, TEST_SETUP, all_advice, symptom_rows
from bnlib.experiments.failing import broken_networks

IMPORTS = """
import copy
import bnlib
import torch
from bnlib.doctor import losses_by_mode
from torch import nn
from torch.nn import functional as F
"""


def is_true(name: str, **names) -> bool:
    """Whether the test of a row is true for a model, batches and what else the row names."""
    names, test = {"model": trained("mlp"), "batches": batches()} | names, all_advice()[name].test
    *setup, scores, losses = TEST_SETUP.splitlines()
    # The losses take the longest.
    exec("\n".join([IMPORTS, *setup, *([scores, losses] if "loss[" in test else [])]), names)
    return bool(eval(test, names))


def with_layer(change, model="mlp", layer="2"):
    """A trained network after a change of one of its layers."""
    network = trained(model)
    change(network.get_submodule(layer))
    return network


def forget_statistics(layer):
    layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    layer.num_batches_tracked = None


def zero_gamma_and_beta(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def stop_tracking(layer):
    layer.track_running_stats = False


def with_frozen_norms():
    model = trained("mlp").train()
    for layer in model:
        layer.train(not isinstance(layer, nn.BatchNorm1d))
    return model


def on_full_norm(rate):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.mlp((64, 50, 50, 10), bnlib.FullNorm)
    return {"model": model, "lr": rate}


def after_a_dry_run():
    model = models.mlp((64, 32, 10), nn.BatchNorm1d)
    model.train()(torch.zeros(4, 1, 8, 8))
    return model.eval()


def with_shared_statistics():
    model = models.mlp((64, 32, 32, 10), nn.BatchNorm1d)
    first, second = (each for each in model if isinstance(each, nn.BatchNorm1d))
    second.load_state_dict(first.state_dict(), assign=True)
    return model


def two_domains(model):
    domains = {"paper": batches(), "negative": batches(change=negative)}
    mixed = [each for pair in zip(*domains.values(), strict=True) for each in pair]
    return {"model": train(model, mixed * 5, 120), "batches": mixed, "domains": domains}


def scaled(factor):
    return lambda x, y: (factor * x, y)


def frozen(until):
    model = trained("mlp")
    model[:until].requires_grad_(False)
    return model


def faint(count=40):
    """A network and its inputs, whose variance is far below eps."""
    few = batches(count=count, change=scaled(0.003))
    return {"model": train(models.mlp((64, 32, 10), nn.BatchNorm1d), few * 4, 4 * count), "batches": few}


def overflow(layer):
    layer(1e30 * torch.rand(4, 32))


def normalised_inputs(count):
    """A network whose first layer normalises the pixels, of which some are constant."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    return train(model, batches(count=count) * 4, 4 * count)


def deep(gamma):
    model = models.mlp((64, *[32] * 8, 10), nn.BatchNorm1d)
    for layer in model:
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.constant_(layer.weight, gamma)
    return model


def exported(model):
    (x, _), *_ = batches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, (x,)).module()


def sampled(epoch):
    sampler = DistributedSampler(range(8), num_replicas=1, rank=0)
    sampler.set_epoch(epoch)
    return DataLoader(range(8), sampler=sampler)


def other_process(label):
    """The state of a process with the same weights, and the averages of samples of one label if there is one."""
    model = trained("mlp")
    if label is not None:
        model(digits().train_x[digits().train_y == label])
    return model.state_dict()


class Checkpointed(nn.Sequential):
    def forward(self, x):
        return checkpoint_sequential(list(self), 2, x, use_reentrant=False)


def after_steps(kind, steps=5):
    return {"model": train(kind(*models.mlp((64, 32, 32, 10), nn.BatchNorm1d)), batches(), steps), "steps": steps}


def averaged(recompute):
    """The average of a network's weights at every tenth step, with the buffers of the last one."""
    model, few = models.mlp((64, 32, 32, 10), nn.BatchNorm1d), batches(count=40)
    mean = AveragedModel(model)
    for start in range(0, 120, 10):
        mean.update_parameters(train(model, few[start % 40 :], 10, lr=1.0))
    if recompute:
        update_bn(few, mean)
    return mean.module


def folded(model):
    layers = list(model.eval())
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.BatchNorm1d):
            layers[place - 1 : place + 1] = [fuse_linear_bn_eval(layers[place - 1], layer), nn.Identity()]
    return nn.Sequential(*layers)


def padded(length):
    """Sequences of 16 steps that are zero from a length on."""
    return batches(change=lambda x, y: ((x.flatten(1).view(-1, 4, 16) + 1) * (torch.arange(16) < length), y))


def with_one_huge_batch():
    return [(x * (100 if number == 5 else 1), y) for number, (x, y) in enumerate(batches())]


def few_labels(count):
    return [(x[y < count], y[y < count]) for x, y in batches(size=128, count=5)]


def one_label():
    return batches(sampler=samplers.single_label)


# For each row what is broken, and what is healthy: names beside a healthy network on shuffled batches.
CASES = {
    "one-value-per-channel": (lambda: {"batches": [*batches(), *batches(1, 1)]}, dict),
    "train-mode-at-inference": (dict, lambda: {"model": trained("mlp").eval()}),
    "no-running-statistics": (lambda: {"model": with_layer(forget_statistics)}, dict),
    "running-statistics-never-updated": (
        lambda: {"model": with_layer(nn.BatchNorm1d.reset_running_stats).eval()},
        lambda: {"model": trained("mlp").eval()},
    ),
    "eval-mode-distorted": (lambda: {"model": displaced("mlp", "2")}, dict),
    "eval-worse-than-train": (lambda: exposures(1), dict),
    "running-statistics-mismatch": (lambda: {"model": displaced("mlp", "2")}, dict),
    "unstable-rate": tuple(lambda rate=rate: on_full_norm(rate) for rate in (5.0, 0.03)),
    "negative-variance": (lambda: {"model": with_layer(lambda layer: layer.running_var[3].fill_(-0.1))}, dict),
    "statistics-of-constant-batches": (lambda: {"model": after_a_dry_run()}, dict),
    "statistics-not-tracked": (lambda: {"model": with_layer(stop_tracking)}, dict),
    "frozen-statistics-mismatch": (
        lambda: {"model": with_frozen_norms(), "batches": batches(change=lambda x, y: (60 * x, y))},
        lambda: {"model": with_frozen_norms()},
    ),
    "layers-share-statistics": (lambda: {"model": with_shared_statistics()}, dict),
    "shared-layer": (lambda: {"model": train(Twice(), batches(count=60), 60)}, dict),
    "domain-statistics-differ": (
        lambda: two_domains(models.mlp((64, 32, 10), nn.BatchNorm1d)),
        lambda: {"domains": {"odd": batches()[1::2], "even": batches()[::2]}},
    ),
    "batches-not-representative": (lambda: {"batches": one_label()}, dict),
    "batch-composition-memorised": (
        lambda: {
            "model": broken_networks.never_reshuffled(),
            "batches": broken_networks.loader(
                broken_networks.random_labels(), size=16, batches=samplers.FixedBatches()
            ),
        },
        dict,
    ),
    "eval-depends-on-batch": (
        lambda: {"model": broken_networks.LayersInList()},
        lambda: {"model": broken_networks.healthy()},
    ),
    "relies-on-batch-statistics": (lambda: exposures(1), lambda: exposures(32)),
    "zero-gamma": (lambda: {"model": with_layer(zero_gamma_and_beta)}, dict),
    "variance-below-eps": (faint, dict),
    "trained-in-eval-mode": (lambda: {"model": models.mlp((64, 32, 10), nn.BatchNorm1d).eval()}, dict),
    "batches-never-reshuffled": tuple(
        lambda shuffle=shuffle: {"loader": DataLoader(TensorDataset(torch.arange(64)), 8, shuffle=shuffle)}
        for shuffle in (False, True)
    ),
    "features-in-last-dimension": (lambda: {"batches": batches(change=lambda x, y: (x[:, 0], y))}, dict),
    "repeated-samples": (lambda: {"batches": batches(change=lambda x, y: (x[:8].repeat(4, 1, 1, 1), y))}, dict),
    "padding-in-statistics": (lambda: {"batches": padded(4)}, lambda: {"batches": padded(16)}),
    "outliers": (lambda: {"batches": with_one_huge_batch()}, dict),
    "gamma-and-beta-not-trained": (lambda: {"model": with_layer(nn.BatchNorm1d.reset_parameters)}, dict),
    "counters-differ": (lambda: {"model": with_layer(lambda layer: layer.num_batches_tracked.mul_(2))}, dict),
    "gradient-explosion": (
        lambda: {"model": models.deep_stack(50, 32, nn.BatchNorm1d, in_features=64, num_classes=10)},
        lambda: {"model": models.deep_stack(5, 32, nn.BatchNorm1d, in_features=64, num_classes=10)},
    ),
    "small-batches": (lambda: {"batches": batches(4)}, dict),
    "frozen-layer-updates-statistics": (
        lambda: {"model": frozen(4)},
        lambda: {"model": nn.Sequential(frozen(4)[:4].eval(), frozen(4)[4:])},
    ),
    "half-precision-statistics": (
        lambda: {
            "model": trained("mlp").to(torch.bfloat16),
            "batches": batches(change=lambda x, y: (x.to(torch.bfloat16), y)),
        },
        dict,
    ),
    "unusual-momentum": (lambda: {"model": with_layer(lambda layer: setattr(layer, "momentum", 0.99))}, dict),
    "non-finite-values": (lambda: {"model": with_layer(overflow)}, dict),
    "feature-hardly-varies": (lambda: {"model": normalised_inputs(40)}, dict),
    "sync-norm-on-cpu": tuple(
        lambda mode=mode: {"model": nn.SyncBatchNorm.convert_sync_batchnorm(trained("mlp")).train(mode)}
        for mode in (True, False)
    ),
    "rounded-bias": (lambda: {"batches": batches(change=scaled(1e-4))}, dict),
    "covariate-shift": (lambda: {"batches": batches(change=negative)}, dict),
    "test-time-adaptation": (lambda: {"batches": one_label()}, dict),
    "loss-higher-in-train-mode": (lambda: {"batches": batches(3, 40)}, dict),
    "small-gamma": (lambda: {"model": deep(0.001)}, lambda: {"model": deep(1.0)}),
    "norm-at-the-output": (lambda: {"model": trained("mlp").append(nn.BatchNorm1d(10))}, dict),
    "q-network": tuple(
        lambda mode=mode: {
            "q": trained("mlp").train(mode),
            "now": batches()[0][0],
            "following": batches(change=negative)[0][0],
        }
        for mode in (True, False)
    ),
    "discriminator": tuple(
        lambda norm=norm: {
            "critic": models.mlp((64, 32, 1), norm),
            "real": batches()[0][0],
            "fake": batches(change=negative)[0][0],
        }
        for norm in (nn.BatchNorm1d, nn.LayerNorm)
    ),
    "gradient-penalty": tuple(
        lambda norm=norm: {"critic": models.mlp((64, 32, 1), norm), "real": batches()[0][0]}
        for norm in (nn.BatchNorm1d, nn.LayerNorm)
    ),
    "contrastive-training": tuple(
        lambda norm=norm: {"encoder": models.mlp((64, 32, 8), norm), "keys": batches()[0][0]}
        for norm in (nn.BatchNorm1d, nn.LayerNorm)
    ),
    "exported-without-statistics": (lambda: {"model": with_layer(forget_statistics)}, dict),
    "exported-in-train-mode": tuple(
        lambda mode=mode: {"model": trained("mlp").eval(), "exported": exported(trained("mlp").train(mode))}
        for mode in (True, False)
    ),
    "checkpoint-without-buffers": (
        lambda: {"checkpoint": dict(trained("mlp").named_parameters())},
        lambda: {"checkpoint": trained("mlp").state_dict()},
    ),
    "keras-defaults": (
        dict,
        lambda: {"model": models.mlp((64, 32, 10), lambda width: nn.BatchNorm1d(width, eps=1e-3))},
    ),
    "sampler-without-set-epoch": (lambda: {"loader": sampled(0)}, lambda: {"loader": sampled(1)}),
    "statistics-per-process": (
        lambda: {"states": [other_process(None), other_process(3)]},
        lambda: {"states": [other_process(None), other_process(None)]},
    ),
    "small-batch-per-device": (lambda: {"batches": batches(4)}, dict),
    "sync-norm-hangs": (lambda: {"lengths": [20, 19]}, lambda: {"lengths": [20, 20]}),
    "sync-norm-in-data-parallel": (
        lambda: {"wrapped": nn.DataParallel(trained("mlp"))},
        lambda: {"wrapped": in_one_process(True)},
    ),
    "averaged-parameters": (lambda: {"model": averaged(False)}, lambda: {"model": averaged(True)}),
    "federated-clients": (lambda: {"batches": few_labels(3)}, dict),
    "gradient-checkpointing": (lambda: after_steps(Checkpointed), lambda: after_steps(nn.Sequential)),
    "fine-tuning": (lambda: {"batches": batches(2)}, lambda: {"batches": batches(2), "model": trained("mlp").eval()}),
    "averaged-weights": (lambda: {"model": averaged(False)}, lambda: {"model": averaged(True)}),
    "quantised": (
        lambda: {"weight": torch.randn(8, 9) * torch.tensor([100.0, *[1.0] * 7])[:, None]},
        lambda: {"weight": torch.randn(8, 9)},
    ),
    "overflow-in-half-precision": (lambda: {"batches": batches(change=scaled(1e6))}, dict),
    "number-types-differ": (lambda: {"batches": [*batches(), *batches(change=lambda x, y: (x.half(), y))]}, dict),
    "counter-in-checkpoint": (
        lambda: {"checkpoint": without_counters(trained("mlp").state_dict())},
        lambda: {"checkpoint": trained("mlp").state_dict()},
    ),
    "two-passes-in-ddp": tuple(lambda each=each: {"ddp": in_one_process(each)} for each in (True, False)),
    "immutable-statistics": (lambda: {"mutable": False}, lambda: {"mutable": ["batch_stats"]}),
    "dropout-in-front": tuple(
        lambda rate=rate: {"model": behind_dropout(rate), "batches": batches(64, 8)} for rate in (0.7, 0.0)
    ),
    "predictions-change-the-model": (dict, lambda: {"model": trained("mlp").eval()}),
    "pretrained-keras-base": tuple(
        lambda each=each: {"base": SimpleNamespace(layers=[BatchNormalization(each)])} for each in (True, False)
    ),
    "folded": (
        lambda: {"model": trained("mlp").eval(), "folded": folded(with_layer(nn.BatchNorm1d.reset_running_stats))},
        lambda: {"model": trained("mlp").eval(), "folded": folded(trained("mlp"))},
    ),
} | MORE_CASES  # fmt: skip


@pytest.mark.parametrize("name", all_advice())
def test_the_line_of_code_tells_a_broken_network_from_a_healthy_one(name):
    broken, healthy = CASES[name]
    assert is_true(name, **broken())
    assert not is_true(name, **healthy())


def test_each_advice_says_what_one_sees_why_and_what_to_do():
    advice = all_advice()
    assert advice.keys() == CASES.keys() and len({each.symptom for each in advice.values()}) == len(advice)
    for name, each in advice.items():
        assert re.fullmatch("[a-z]+(-[a-z]+)*", name) and each.group in SYMPTOM_GROUPS
        assert each.symptom[0].isupper() and not each.symptom.endswith(".")
        assert each.cause.endswith(".") and each.remedy.endswith(".")
        assert not any(text.count("`") % 2 for text in (each.symptom, each.cause, each.remedy))
        assert re.fullmatch(r"chapters/(\d\d_\w+|frameworks|torch_parts)\.ipynb#[\w-]+", each.section)


def test_each_row_stands_in_one_part_of_its_group():
    placed = [
        (group, name) for group, parts in SYMPTOM_PARTS.items() for names in parts.values() for name in names.split()
    ]
    assert sorted(placed) == sorted((each.group, name) for name, each in all_advice().items())
    assert list(SYMPTOM_PARTS) == list(SYMPTOM_GROUPS)


def test_the_rows_of_a_group_come_from_the_advice():
    rows = [row for group in SYMPTOM_GROUPS for row in symptom_rows(group)]
    assert len(rows) == len(all_advice())
    assert {row["what you see"] for row in rows} == {each.symptom for each in all_advice().values()}
    reported = {name for row in rows for name in re.findall("The doctor reports `(.+?)`", row["how to tell"])}
    assert reported == set(ADVICE)
    (row,) = (row for row in rows if "`zero-gamma`" in row["how to tell"])
    assert row["cure"].endswith("[Chapter 7, “Gamma is zero”](07_why_is_my_bn_failing.ipynb#gamma-is-zero)")
    with pytest.raises(ValueError, match=r"group must be one of error, eval.* got 'nothing'"):
        symptom_rows("nothing")
