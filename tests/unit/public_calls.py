"""A valid call of every public function outside ``bnlib.norm``, with the kind of each argument.

``BAD`` has values that an argument of a kind cannot have.
"""

import tempfile

import torch
from torch import nn

import bnlib
from bnlib import (
    datasets,
    distributed,
    gradient_clipping,
    mcsgd,
    models,
    monitor,
    objective,
    port,
    probes,
    samplers,
    schedules,
    stacked,
    sweep,
    training,
)

NAN = float("nan")
BAD = {
    "model": ["resnet18", None, 3, nn.Linear, [nn.Linear(2, 2)]],
    "function": ["sgd", None, 3, torch.ones(2)],
    "tensor": ["x", 1.5, [1.0, 2.0], torch.ones(6, 3, dtype=torch.complex64)],
    "count": [0, -1, 1.5, NAN, True, "3", None, torch.tensor([1, 2])],
    "seed": [-1, 1.5, NAN, True, "3", None],
    "positive": [0, -1, NAN, float("inf"), "0.1", True, None, [0.1], torch.tensor([0.1])],
    "not negative": [-1, NAN, float("inf"), "0.1", True, None, [0.1]],
    "number": [NAN, float("-inf"), "0.1", True, None, [0.1]],
    "share": [-0.1, 1.1, NAN, "half", True, None],
    "weight": [0.0, 1.5, -1, NAN, "x", None],
    "numbers": ["high", None, 3, [], [NAN, "x"]],
    "name": ["zzz", "", None, 3, ["running"]],
    "names": [3, "weight", 1.5, True],
    "device": ["gpu", "cuda:99", 3.5, "", []],
    "list": [3, None, 1.5],
    "path": [3, 1.5, []],
    "folder": [3, 1.5, [], ""],
    "data": ["imagenet", None, 3, torch.ones(2)],
    "text": ["x", 1.5],
    "step": [0, -1, NAN, "x", True],
    "some whole": [-1, 1.5, "1", NAN],
    "whole": [1.5, "1", None, NAN],
    "norm": ["groupnrm", 3, bnlib.BatchNorm(3)],
    "statistics": [torch.ones(3), None, "x"],
    "some eps": [-1, NAN, "0.1", True, [0.1]],
    "some share": [-0.1, 1.1, NAN, "half", True],
    "some name": ["zzz", "", 3, ["running"]],
    "some count": [0, 1, 1.5, NAN, True, "3"],
    "channels": ["high", None, [], [[1.0], [2.0]]],
    "state": [torch.ones(3), None, "x", {"0": 3}],
}


def network():
    return models.mlp((3, 4, 3), bnlib.BatchNorm)


X, Y, LABELS = torch.randn(6, 3), torch.arange(6) % 3, torch.arange(12) % 3
POINTS, LAYERS = datasets.three_points(), [objective.Layer(torch.randn(2, 4), torch.relu)]


def per_sample(outputs, targets):
    return outputs.sum(-1)


def of_model(model):
    return model(X).square().mean()


def one_step(sampler):
    return lambda **given: next(sampler(**given))


def problem():
    stage = mcsgd.Stage(lambda p, z, y: y.expand(len(z), 1), lambda p, z: p["w"] * z, torch.zeros(1))
    return mcsgd.Composition([stage], lambda p, z, target: (z[:, 0] - 1).square())


SGD, SAMPLED = torch.optim.SGD, {"labels": (LABELS, "tensor"), "batch_size": (2, "count"), "seed": (0, "seed")}
RATES = {"low": (0.1, "positive"), "high": (1.0, "positive")}
EPS, EPOCHS = {"eps": (0.1, "not negative")}, {"epochs": (1, "count"), "checkpoints": (1, "count")}
PROBED, DATA = {"model": (network(), "model"), "loss": (of_model, "function")}, {"x": (X, "tensor"), "y": (Y, "tensor")}
SETTINGS = {
    "data": (POINTS, "data"),
    "batch_size": (3, "count"),
    **EPOCHS,
    "optimiser": (SGD, "function"),
    "device": ("cpu", "device"),
    "batches": (samplers.shuffled, "function"),
}
TRAINED = {
    "model": (network(), "model"),
    **SETTINGS,
    "lr": (0.1, "not negative"),
    "seed": (0, "seed"),
    "schedule": (schedules.StepDecay(1, 0.1), "text"),
    "callbacks": ([], "list"),
}
LAYERED = {"layers": (LAYERS, "list"), "loss": (per_sample, "function"), **DATA}
SEEDED = {"seed": (0, "seed")}
SIZED = {name: (2, "count") for name in ("depth", "width", "in_features", "num_classes")} | SEEDED
IMAGES = {"num_classes": (2, "count"), "in_channels": (1, "count"), "norm": (None, "norm")} | SEEDED
SCAN = {"run": (lambda lr: lr < 0.5, "function")}
SHAPED = {"weight": (X, "tensor"), "lr": (0.1, "positive")}
THEOREM = {"loss": (lambda at: at.square().sum(), "function"), "y": (torch.randn(6, 3).double(), "tensor")}
STATISTICS = probes.channel_statistics(X)
DEVICE = {"device": ("cpu", "text")}
STATE, KERAS = port.BatchNormState([0.0], [1.0]), {"moving_mean": [0.0], "moving_variance": [1.0]}
READ = {"source": (KERAS, "device"), "framework": ("keras", "name"), "eps": (0.1, "some eps")}
READ |= {"momentum": (0.9, "some share"), "without": ("bias", "some name"), "debias": (True, "numbers")}

CALLS = {
    training.fit: (lambda **given: training.fit(progress=False, **given), TRAINED),
    training.iterate: (lambda **given: list(training.iterate(**given)), TRAINED),
    training.iterate_many: (
        lambda **given: list(training.iterate_many(**given)),
        {"models": ([network()], "list"), "lrs": ([0.1], "list"), "seeds": ([0], "list"), **SETTINGS},
    ),
    training.error_rate: (training.error_rate, {"model": (network(), "model"), "x": (X, "text"), "y": (Y, "tensor")}),
    training.check_device: (lambda device: training.check_device("device", device), {"device": ("cpu", "device")}),
    sweep.Run: (
        lambda **given: list(sweep.Run(**given).iterate()),
        {"model": (models.three_point_network, "function"), "data": ("three_points", "data"), **SEEDED}
        | {"batch_size": (3, "count"), "lr": (0.1, "not negative"), **EPOCHS},
    ),
    sweep.run: (
        lambda **given: sweep.run(**{"cache": tempfile.mkdtemp(), **given}, progress=False),
        {"runs": ([], "list"), "cache": (tempfile.mkdtemp(), "folder"), "max_stacked": (1, "count")}
        | {"workers": (1, "count"), "devices": (("cpu",), "list")},
    ),
    stacked.stack: (stacked.stack, {"models": ([network()], "list")}),
    stacked.can_stack: (stacked.can_stack, {"model": (network(), "model")}),
    stacked.has_stacked_layers: (stacked.has_stacked_layers, {"model": (network(), "model")}),
    samplers.shuffled: (one_step(samplers.shuffled), SAMPLED),
    samplers.single_label: (one_step(samplers.single_label), SAMPLED),
    samplers.MaxLabelsPerBatch: (
        lambda k, **given: next(samplers.MaxLabelsPerBatch(k)(**given)),
        {"k": (2, "count"), **SAMPLED},
    ),
    samplers.ClassSkewed: (
        lambda share, **given: next(samplers.ClassSkewed(share)(**given)),
        {"share": (0.5, "share"), **SAMPLED},
    ),
    samplers.FixedBatches: (one_step(samplers.FixedBatches()), SAMPLED),
    samplers.PerWorker: (
        lambda rank=0, world_size=2, base=samplers.shuffled, skew=0.5, **given: next(
            samplers.PerWorker(rank, world_size, base, skew=skew)(**given)
        ),
        {"rank": (0, "seed"), "world_size": (2, "count"), "base": (samplers.shuffled, "function")}
        | {"skew": (0.5, "share"), **SAMPLED},
    ),
    samplers.shards: (
        samplers.shards,
        {"labels": (LABELS, "tensor"), "world_size": (2, "count"), "skew": (0.5, "share")}
        | {"generator": (torch.Generator(), "tensor")},
    ),
    samplers.check_batch_size: (
        lambda batch_size: samplers.check_batch_size(batch_size, 5),
        {"batch_size": (2, "count")},
    ),
    schedules.PowerSchedule: (
        schedules.PowerSchedule,
        {"scale": (1, "positive"), "power": (1, "not negative"), "floor": (0, "share"), "start": (0, "not negative")},
    ),
    schedules.LinearRamp: (
        schedules.LinearRamp,
        {"low": (0, "number"), "high": (1, "number"), "begin": (0, "number"), "end": (1, "positive")},
    ),
    schedules.StepDecay: (schedules.StepDecay, {"every": (1, "positive"), "factor": (0.1, "not negative")}),
    mcsgd.minimize: (
        lambda **given: list(mcsgd.minimize(**given)),
        {"composition": (problem(), "model"), "params": ({"w": torch.tensor(1.0)}, "list")}
        | {"batches": ([(torch.ones(1, 1), None)], "list"), "lr": (0.1, "not negative"), "alpha": (0.1, "weight")}
        | {"oracle": ("running", "name"), "estimator": ("exponential", "name"), "order": ("layerwise", "name")},
    ),
    mcsgd.Stage: (
        mcsgd.Stage,
        {"apply": (len, "function"), "statistic": (len, "function"), "start": (torch.zeros(1), "tensor")},
    ),
    mcsgd.Composition: (mcsgd.Composition, {"stages": ([], "list"), "loss": (len, "function")}),
    objective.plain_objective: (objective.plain_objective, LAYERED),
    objective.bn_objective: (
        objective.bn_objective,
        {**LAYERED, "batches": (torch.arange(6).view(2, 3), "list"), **EPS},
    ),
    objective.full_objective: (objective.full_objective, {**LAYERED, **EPS}),
    objective.estimated_objective: (
        lambda count=3, sampler=None, **given: objective.estimated_objective(
            sampler=samplers.shuffled(Y, 2, 0) if sampler is None else sampler, count=count, **given
        ),
        {**LAYERED, "count": (3, "count"), "sampler": (None, "path"), **EPS},
    ),
    objective.model_objective: (
        objective.model_objective,
        {"model": (network(), "model"), "loss": (per_sample, "function"), **DATA}
        | {"batches": ([torch.arange(6)], "list")},
    ),
    objective.all_batches: (
        objective.all_batches,
        {"samples": (4, "count"), "batch_size": (2, "count"), "limit": (100, "count")},
    ),
    objective.worker_batches: (
        objective.worker_batches,
        {"shards": ([[0, 1], [2, 3]], "list"), "batch_size": (2, "count"), "limit": (100, "count")},
    ),
    objective.absorb_batch_norm: (
        objective.absorb_batch_norm,
        {"network": (nn.Sequential(nn.Linear(3, 4), bnlib.BatchNorm(4)), "model"), "data": (X, "tensor")},
    ),
    objective.plain_operator: (
        objective.plain_operator,
        {"weight": (torch.randn(2, 4), "tensor"), "activation": (torch.relu, "function"), "values": (X, "tensor")},
    ),
    objective.bn_operator: (
        objective.bn_operator,
        {"weight": (torch.randn(2, 4), "tensor"), "activation": (torch.relu, "function"), "values": (X, "tensor")}
        | {"batch_values": (X, "tensor"), **EPS},
    ),
    objective.plain_network: (objective.plain_network, {"layers": (LAYERS, "list"), "x": (X, "tensor")}),
    objective.bn_network: (
        objective.bn_network,
        {"layers": (LAYERS, "list"), "x": (X, "tensor"), "batch": (X, "tensor"), **EPS},
    ),
    datasets.load: (datasets.load, {"name": ("three_points", "name")}),
    datasets.wide_variation: (
        datasets.wide_variation,
        {name: (3, "count") for name in ("num_classes", "num_train", "num_test")}
        | {"max_value": (5.0, "number"), "noise": (1.0, "not negative"), **SEEDED},
    ),
    datasets.randomly_scaled: (
        datasets.randomly_scaled,
        {"name": ("three_points", "name"), "low": (-1.0, "number"), "high": (1.0, "number"), **SEEDED},
    ),
    datasets.Dataset: (
        datasets.Dataset,
        {"name": ("mine", "path"), "train_x": (X, "text"), "train_y": (Y, "text"), "test_x": (X, "text")}
        | {"test_y": (Y, "text"), "num_classes": (3, "count")},
    ),
    datasets.mnist: (datasets.mnist, {"splits": (("train",), "list"), "root": ("/nowhere", "path")}),
    datasets.fashion_mnist: (datasets.fashion_mnist, {"splits": (("train",), "list"), "root": ("/nowhere", "path")}),
    datasets.cifar10: (datasets.cifar10, {"splits": (("train",), "list"), "root": ("/nowhere", "path")}),
    datasets.read_idx: (datasets.read_idx, {"path": ("/nowhere", "path")}),
    models.mlp: (
        models.mlp,
        {"sizes": ((3, 4, 2), "list"), "norm": (None, "norm"), "activation": (nn.ReLU, "function")}
        | {"placement": ("before", "name"), **SEEDED},
    ),
    models.deep_stack: (models.deep_stack, {**SIZED, "norm": (None, "norm"), "placement": ("before", "name")}),
    models.logistic_regression: (
        models.logistic_regression,
        {"in_features": (2, "count"), "num_classes": (2, "count"), **SEEDED},
    ),
    models.three_point_network: (models.three_point_network, SEEDED),
    models.small_cnn: (models.small_cnn, {**IMAGES, "width": (2, "count")}),
    models.vgg: (models.vgg, {**IMAGES, "width": (2, "count")}),
    models.resnet18: (models.resnet18, {**IMAGES, "width": (2, "count")}),
    models.lian_figure_6_cnn: (models.lian_figure_6_cnn, {"hidden": (2, "count"), "norm": (None, "norm"), **SEEDED}),
    models.lstm_stack: (models.lstm_stack, {**SIZED, "norm": (None, "norm")}),
    models.residual_stack: (models.residual_stack, {**SIZED, "norm": (None, "norm")}),
    models.normaliser_free_stack: (models.normaliser_free_stack, SIZED),
    monitor.Monitor: (
        monitor.Monitor,
        {"model": (network(), "model"), "every": (1, "count"), "to": (None, "text"), "warn": (True, "text")},
    ),
    gradient_clipping.unit_norms: (gradient_clipping.unit_norms, {"tensor": (X, "tensor")}),
    gradient_clipping.clipped: (
        gradient_clipping.clipped,
        {"parameter": (X, "text"), "gradient": (X, "text"), "clipping": (0.1, "positive"), "eps": (0.1, "positive")},
    ),
    gradient_clipping.clip_gradients_adaptively_: (
        gradient_clipping.clip_gradients_adaptively_,
        {"parameters": ([X], "list"), "clipping": (0.1, "positive"), "eps": (0.1, "positive")},
    ),
    distributed.data_parallel: (distributed.data_parallel, {"model": (network(), "model")}),
    distributed.mean_over_processes: (distributed.mean_over_processes, {"values": (X, "tensor")}),
    distributed.run_in_processes: (
        lambda function=len, workers=0: distributed.run_in_processes(function, workers),
        {"function": (len, "function"), "workers": (1, "count")},
    ),
    distributed.join_process_group: (lambda device: distributed.join_process_group(device).__enter__(), DEVICE),
    port.norms: (port.norms, READ),
    port.read: (port.read, READ),
    port.load: (
        port.load,
        {"model": (nn.BatchNorm1d(1), "model"), "states": (STATE, "state"), "values_per_channel": (8, "some count")},
    ),
    port.write: (
        port.write,
        {"states": (STATE, "state"), "framework": ("keras", "name"), "values_per_channel": (8, "some count")},
    ),
    port.values_per_channel: (port.values_per_channel, {"model": (network(), "model"), "x": (X, "tensor")}),
    port.BatchNormState: (
        port.BatchNormState,
        {"running_mean": ([0.0], "channels"), "running_var": ([1.0], "channels"), "eps": (0.1, "not negative")}
        | {"momentum": (0.1, "some share"), "variance": ("biased", "name"), "framework": ("torch", "name")}
        | {"count": (3, "some whole"), "channel_axis": (1, "whole")},
    ),
    probes.channel_statistics: (
        probes.channel_statistics,
        {"values": (X, "tensor"), "num_quantiles": (3, "count"), "channel_dim": (1, "whole")},
    ),
    probes.statistics_distance: (
        probes.statistics_distance,
        {"first": (STATISTICS, "statistics"), "second": (STATISTICS, "statistics")},
    ),
    probes.activation_statistics: (
        probes.activation_statistics,
        {"model": (network(), "model"), "x": (X, "tensor"), "layers": (["1"], "names"), "num_quantiles": (3, "count")},
    ),
    probes.record_activation_statistics: (
        lambda **given: probes.record_activation_statistics(**given).__enter__(),
        {"model": (network(), "model"), "layers": (["1"], "names")},
    ),
    probes.batch_dependence: (probes.batch_dependence, {"module": (network(), "model"), "inputs": (X, "tensor")}),
    probes.train_eval_difference: (
        probes.train_eval_difference,
        {"module": (network(), "model"), "inputs": (X, "tensor")},
    ),
    probes.relative_difference: (probes.relative_difference, {"first": (X, "tensor"), "second": (X + 1, "tensor")}),
    probes.gradient_norms_by_layer: (probes.gradient_norms_by_layer, {**PROBED, "layers": (["1"], "names")}),
    probes.growth_per_layer: (probes.growth_per_layer, {"norms": ([1.0, 2.0], "numbers")}),
    probes.landscape_along_gradient: (
        probes.landscape_along_gradient,
        {**PROBED, "step_sizes": ([0.1], "numbers"), "parameter_names": (None, "names")},
    ),
    probes.step_sizes: (
        probes.step_sizes,
        {"lr": (0.1, "positive"), "low": (0.5, "not negative"), "high": (4, "positive"), "count": (3, "count")},
    ),
    probes.sharpness: (
        probes.sharpness,
        {**PROBED, "parameter_names": (None, "names"), "tolerance": (1e-3, "positive"), **SEEDED}
        | {"max_iterations": (2, "count"), "finite_difference": (1e-3, "step")},
    ),
    probes.with_recomputed_statistics: (
        probes.with_recomputed_statistics,
        {"model": (network(), "model"), "batches": ([X], "list")},
    ),
    probes.largest_stable_learning_rate: (probes.largest_stable_learning_rate, {**SCAN, **RATES}),
    probes.scan_learning_rates: (probes.scan_learning_rates, {**SCAN, "rates": ([0.1, 1.0], "numbers")}),
    probes.filter_normalised_direction: (
        probes.filter_normalised_direction,
        {"model": (network(), "model"), "parameter_names": (None, "names"), **SEEDED},
    ),
    probes.loss_surface: (
        lambda directions=None, **given: probes.loss_surface(
            directions=[probes.filter_normalised_direction(network(), 0)] if directions is None else directions, **given
        ),
        {**PROBED, "directions": (None, "path"), "coordinates": ([[0.0, 1.0]], "list")},
    ),
    probes.parameters_by_layer: (probes.parameters_by_layer, PROBED),
    probes.scale_invariance: (
        probes.scale_invariance,
        {**PROBED, "parameter_names": (None, "names"), "factor": (2.0, "positive")},
    ),
    probes.internal_covariate_shift: (
        lambda **given: probes.internal_covariate_shift(new_parameters=dict(network().named_parameters()), **given),
        PROBED,
    ),
    probes.parameters_after_step: (
        lambda model, optimiser=None, **given: probes.parameters_after_step(
            model, SGD(PROBED["model"][0].parameters(), lr=0.1) if optimiser is None else optimiser, **given
        ),
        {**PROBED, "optimiser": (None, "path")},
    ),
    probes.internal_covariate_shift_of_step: (
        lambda model, optimiser=None, **given: probes.internal_covariate_shift_of_step(
            model, SGD(PROBED["model"][0].parameters(), lr=0.1) if optimiser is None else optimiser, **given
        ),
        {**PROBED, "optimiser": (None, "path")},
    ),
    probes.effective_learning_rate: (probes.effective_learning_rate, SHAPED),
    probes.spherical_step: (probes.spherical_step, {**SHAPED, "gradient": (X, "tensor")}),
    probes.weight_decay_equilibrium: (
        probes.weight_decay_equilibrium,
        {name: (0.1, "positive") for name in ("lr", "weight_decay", "unit_gradient_norm")},
    ),
    probes.theorem_4_1: (probes.theorem_4_1, THEOREM),
    probes.theorem_4_2: (probes.theorem_4_2, THEOREM),
    probes.theorem_4_4: (probes.theorem_4_4, {**THEOREM, "radius": (0.1, "positive")}),
}

WITHOUT_WRONG_VALUES = {
    *(training.step_is_elementwise, training.step_is_proportional_to_gradient, training.step_is_proportional_to_rate),
    *(sweep.describe, sweep.code_hash, sweep.cache_key, schedules.check_schedule, mcsgd.State, training.progress_bar),
    *(stacked.Stack, stacked.VmapStack, stacked.LayerStack, objective.Layer, objective.Estimate, training.best_device),
    *(datasets.DatasetError, datasets.digits, datasets.three_points, distributed.rank_and_world_size, training.History),
    *(distributed.broadcast_from_rank_0, monitor.lightning, monitor.transformers, port.Norms, port.Written),
}
"""Functions that take nothing or anything, and classes that only hold results, as the probes' own."""
