"""What bnlib computes for the settings of a run of the engine, see assets/engine/protocol.js."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnlib
from bnlib import datasets, models, samplers
from bnlib.datasets import Dataset
from bnlib.experiments.failing import initial_gamma
from bnlib.experiments.objective import objective_and_evaluation
from bnlib.experiments.perils import train_mode_at_inference, two_towers
from bnlib.norm import use_domain
from bnlib.probes import with_recomputed_statistics
from bnlib.schedules import LinearRamp, PowerSchedule

Settings = dict[str, Any]
ARGUMENTS = {"rMax": "r_max", "dMax": "d_max", "virtualBatchSize": "virtual_batch_size"}


def schedule(value):
    """A number, or the schedule with these arguments."""
    if not isinstance(value, dict):
        return value
    return LinearRamp(**value) if "low" in value else PowerSchedule(**value)


CLASSES = {
    "batch_norm": bnlib.BatchNorm,
    "full_norm": bnlib.FullNorm,
    "batch_renorm": bnlib.BatchRenorm,
    "domain_batch_norm": partial(bnlib.DomainBatchNorm, num_domains=2),
    "ghost_batch_norm": bnlib.GhostBatchNorm,
    "rms_norm": bnlib.RMSNorm,
    "dynamic_tanh": bnlib.DynamicTanh,
}

NORMALISATIONS = (
    bnlib.BatchNorm
    | bnlib.FullNorm
    | bnlib.BatchRenorm
    | bnlib.RMSNorm
    | bnlib.DynamicTanh
    | bnlib.FilterResponseNorm
    | bnlib.EvoNormS0
    | nn.GroupNorm
)
PARAMETERS = (
    *("weight", "original", "original1", "bias", "original0"),
    *("v", "alpha", "threshold", "learned_eps"),
)
"""The names of parameters in the engine's order: the weights of a linear layer first, then its bias and lengths."""


def norm(settings: Settings):
    """The class or name that ``models.mlp`` takes."""
    kind = settings.get("kind", "none")
    if kind not in CLASSES:
        return partial(nn.GroupNorm, settings["groups"]) if "groups" in settings else kind
    arguments = {ARGUMENTS.get(name, name): schedule(value) for name, value in settings.items() if name != "kind"}
    return partial(CLASSES[kind], **arguments)


def network(settings: Settings) -> nn.Sequential:
    """The network before training, in the precision of the settings."""
    wanted, data = settings.get("network", {}), settings.get("data", {"name": "digits"})["name"]
    ends = (3, 3) if data == "three_points" else (64, 10)
    he = {"init": nn.init.kaiming_normal_} if wanted.get("initialisation") == "he" else {}
    sizes = (ends[0], *wanted.get("hidden", (100, 100)), ends[1])
    if wanted.get("skipConnections"):
        return residual(settings).to(dtype(settings))
    model = models.mlp(
        sizes, norm(wanted.get("norm", {})), placement=wanted.get("placement", "before"), seed=seed(settings), **he
    )
    for layer in normalisations(model):
        nn.init.constant_(layer.weight, wanted.get("gamma", 1))
    round_lengths(model)
    return model.to(dtype(settings))


def residual(settings: Settings) -> nn.Sequential:
    """The network of ``initial_gamma`` with this normalisation in the place of BN."""
    wanted = settings["network"]
    with mock.patch.object(initial_gamma, "WIDTH", wanted["hidden"][0]):
        model = initial_gamma.residual(len(wanted["hidden"]) // 2, seed=seed(settings))
    for block in model:
        if isinstance(block, initial_gamma.Block):
            for place in (1, 4):
                block.branch[place] = norm(wanted["norm"])(wanted["hidden"][0])
            nn.init.constant_(block.branch[4].weight, wanted.get("gamma", 1))
    return model


@torch.no_grad()
def round_lengths(model: nn.Module) -> None:
    """Round the lengths of weight norm correctly, because the last bit of PyTorch's differs between processors."""
    for layer in model:
        weight = getattr(getattr(layer, "parametrizations", None), "weight", None)
        if hasattr(weight, "original0"):
            lengths = weight.original1.double().norm(dim=1, keepdim=True).float()
            torch.testing.assert_close(weight.original0.detach(), lengths, rtol=1e-6, atol=0)
            weight.original0.copy_(lengths)


def seed(settings: Settings) -> int:
    return settings.get("seed", 0)


def dtype(settings: Settings) -> torch.dtype:
    return getattr(torch, settings.get("precision", "float32"))


def normalisations(model: nn.Module) -> list[nn.Module]:
    """The normalisations in order; of a domain-specific one the layer of each domain."""
    return [layer for layer in model.modules() if isinstance(layer, NORMALISATIONS)]


def parameters(model: nn.Module) -> list[Tensor]:
    """The parameters in the order of driver.js."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | NORMALISATIONS)]
    found = []
    for layer in layers:
        named = {name.rpartition(".")[2]: each.detach() for name, each in layer.named_parameters()}
        found += [named[name] for name in PARAMETERS if name in named]
        assert named.keys() <= set(PARAMETERS), named.keys()
    return found


def within(model: nn.Module, domain: int):
    """A ``with`` block in which domain-specific normalisations are in this domain."""
    specific = any(isinstance(layer, bnlib.DomainBatchNorm) for layer in model.modules())
    return use_domain(model, domain) if specific else nullcontext()


def data(settings: Settings) -> list[Dataset]:
    """The data set of each domain, in the precision of the settings."""
    name = settings.get("data", {"name": "digits"})["name"]
    found = two_towers.domains("inverted", seed(settings)) if name == "two_domains" else [datasets.load(name)]
    random = settings.get("data", {}).get("labels") == "random"
    drawn = [
        objective_and_evaluation._random_labels(d.train_y, d.num_classes, seed(settings)) if random else d.train_y
        for d in found
    ]
    return [
        Dataset(d.name, d.train_x.to(dtype(settings)), y, d.test_x.to(dtype(settings)), d.test_y, d.num_classes)
        for d, y in zip(found, drawn, strict=True)
    ]


def tests(settings: Settings, domains: list[Dataset]) -> list[tuple[Tensor, Tensor, int]]:
    """The images and labels of each test set, and the seed of its batches in train mode."""
    found = [(d.test_x, d.test_y, seed(settings)) for d in domains]
    also = settings.get("data", {}).get("testTraining", False)
    return [*found, *((d.train_x, d.train_y, seed(settings) + 1000) for d in domains if also)]


def sampler(settings: Settings) -> Callable[..., Iterator[Tensor]]:
    """The sampler of bnlib."""
    wanted = settings.get("batches", {"construction": "shuffled"})
    options = {"shuffleSamples": "shuffle_samples", "shuffleBatches": "shuffle_batches"}
    return {
        "shuffled": samplers.shuffled,
        "single_label": samplers.single_label,
        "max_labels": samplers.MaxLabelsPerBatch(wanted.get("labels", 1)),
        "fixed": samplers.FixedBatches(**{options[name]: value for name, value in wanted.items() if name in options}),
    }[wanted["construction"]]


def parts(settings: Settings, domains: list[Dataset]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The samples and labels of each part of each batch; losses are averaged, those of two domains added."""
    size = settings["batchSize"]
    streams = [sampler(settings)(d.train_y, size, seed(settings) + i) for i, d in enumerate(domains)]
    own = round(settings.get("data", {}).get("share", 1) * size)
    for drawn in zip(*streams, strict=True):
        if len(drawn) == 1:
            cut = drawn[0].split(settings.get("microBatchSize") or size)
            yield [(domains[0].train_x[index], domains[0].train_y[index]) for index in cut]
        else:
            places = [(drawn[0][:own], drawn[1][own:]), (drawn[0][own:], drawn[1][:own])]
            yield [
                tuple(torch.cat([getattr(d, name)[i] for d, i in zip(domains, place, strict=True)]) for name in
                      ("train_x", "train_y"))
                for place in places
            ]  # fmt: skip


def trained(settings: Settings) -> dict[str, Any]:
    """Train for ``steps`` and return the same as the driver: parameters, checkpoints and running statistics.

    Several tests compare with the same run, which is made once.
    """
    return _trained(json.dumps(settings, sort_keys=True))


@cache
def _trained(text: str) -> dict[str, Any]:
    settings = json.loads(text)
    domains, model = data(settings), network(settings)
    initial = [each.clone() for each in parameters(model)]
    optimiser = torch.optim.SGD(model.parameters(), settings["learningRate"], settings.get("momentum", 0))
    checkpoints, seen = [], []
    for step, batch in enumerate(itertools.islice(parts(settings, domains), settings["steps"]), 1):
        freeze(model, settings, step)
        if step == 1:
            first, scores = copy.deepcopy(model), []
            for place, (x, y) in enumerate(batch):
                with within(first, place if len(domains) > 1 else 0):
                    scores.append(scored(first(x), y))
            checkpoints.append(checkpoint(settings, first, domains, 0, scores))
        optimiser.zero_grad()
        weight = 1 if len(domains) > 1 else 1 / len(batch)
        for place, (x, y) in enumerate(batch):
            with within(model, place if len(domains) > 1 else 0):
                logits = model(x)
            loss = F.cross_entropy(logits, y)
            seen.append((loss.item(), errors(logits, y)))
            (loss * weight).backward()
        optimiser.step()
        if step in settings["checkpoints"]:
            checkpoints.append(checkpoint(settings, model, domains, step, seen))
            seen = []
    return {"initial": initial, "checkpoints": checkpoints, "final": parameters(model), "running": running(model)}


def freeze(model: nn.Module, settings: Settings, step: int) -> None:
    """Put the normalisations into eval mode if their statistics are frozen in this step."""
    frozen = settings.get("freezeStatistics") is not None and step > settings["freezeStatistics"]
    for layer in normalisations(model):
        layer.train(not frozen)


def scored(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The mean loss and the share of errors."""
    return F.cross_entropy(logits, labels).item(), errors(logits, labels)


def errors(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) != labels).count_nonzero().item() / len(labels)


def checkpoint(settings: Settings, model: nn.Module, domains: list[Dataset], step: int, seen: list) -> dict[str, Any]:
    """The checkpoint as protocol.js describes it."""
    losses, shares = zip(*seen, strict=True)
    test = {name: EVALUATIONS[name](settings, model, domains) for name in settings.get("evaluations", ["eval"])}
    return {
        "step": step,
        "epoch": step * settings["batchSize"] / len(domains[0].train_y),
        "trainLoss": sum(losses) / len(losses),
        "trainError": sum(shares) / len(shares),
        "test": {
            name: [dict(zip(("loss", "error"), pair, strict=True)) for pair in found] for name, found in test.items()
        },
    }


@torch.no_grad()
def in_eval_mode(settings: Settings, model: nn.Module, domains: list[Dataset]) -> list[tuple[float, float]]:
    model.eval()  # the next step puts it back
    found = []
    for place, (x, y, _) in enumerate(tests(settings, domains)):
        with within(model, place if len(domains) > 1 else 0):
            found.append(scored(model(x), y))
    return found


def with_precise_statistics(settings: Settings, model: nn.Module, domains: list[Dataset]) -> list[tuple[float, float]]:
    recomputed = with_recomputed_statistics(model, [torch.cat([d.train_x for d in domains])])
    return in_eval_mode(settings, recomputed, domains)


@torch.no_grad()
def in_train_mode(settings: Settings, model: nn.Module, domains: list[Dataset]) -> list[tuple[float, float]]:
    found, size = [], settings.get("evaluationBatchSize") or settings["batchSize"]
    for place, (x, y, its_seed) in enumerate(tests(settings, domains)):
        copied = copy.deepcopy(model).train()
        batches = train_mode_at_inference.batches(y, "shuffled", size, its_seed)
        with within(copied, place if len(domains) > 1 else 0):
            scores = [scored(copied(x[index]), y[index]) for index in batches]
        found.append(tuple(sum(column) / len(column) for column in zip(*scores, strict=True)))
    return found


EVALUATIONS = {"eval": in_eval_mode, "precise": with_precise_statistics, "train": in_train_mode}


def running(model: nn.Module) -> list[dict[str, Tensor]]:
    """The running statistics of each normalisation by the engine's names."""
    names = {
        "mean": "running_mean",
        "variance": "running_var",
        "gammaGradient": "running_grad_weight",
        "betaGradient": "running_grad_bias",
    }
    return [
        {name: getattr(layer, buffer) for name, buffer in names.items() if hasattr(layer, buffer)}
        for layer in normalisations(model)
    ]
