"""Messages: every public function outside ``bnlib.norm`` names a wrong argument, its value and what it must be."""

import inspect
import re

import numpy as np
import pytest
import torch
from public_calls import BAD, CALLS, LABELS, POINTS, WITHOUT_WRONG_VALUES, X, network, of_model, problem

import bnlib
from bnlib import (
    NORMS,
    arguments,
    claims,
    datasets,
    distributed,
    gradient_clipping,
    mcsgd,
    models,
    monitor,
    objective,
    port,
    predictions,
    probes,
    samplers,
    schedules,
    stacked,
    sweep,
    training,
)
from bnlib.experiments.framework.registry import EXPERIMENTS


def named(function):
    return f"{function.__module__}.{function.__qualname__}"


def fault(call, name, given, wrong) -> str:
    """What is wrong with the message for a wrong argument, or nothing."""
    try:
        call(**given | {name: wrong})
    except (TypeError, ValueError) as error:
        found = re.search(rf"\b{name}\b.* must .*, got .", str(error), re.DOTALL)
        return "" if found else f"{name}={arguments.shown(wrong)}: {type(error).__name__}: {error}"
    except Exception as error:
        return f"{name}={arguments.shown(wrong)}: {type(error).__name__}: {error}"
    return f"{name}={arguments.shown(wrong)} is accepted"


@pytest.mark.parametrize("function", CALLS, ids=named)
def test_a_wrong_argument_is_named(function):
    call, given = CALLS[function]
    values = {name: value for name, (value, _) in given.items()}
    faults = [fault(call, name, values, wrong) for name, (_, kind) in given.items() for wrong in BAD[kind]]
    assert len(faults) > 0 and not [each for each in faults if each]


@pytest.mark.parametrize("function", CALLS, ids=named)
def test_the_call_is_right_otherwise(function):
    call, given = CALLS[function]
    if {"root", "path"} & given.keys():
        with pytest.raises(datasets.DatasetError):
            call(**{name: value for name, (value, _) in given.items()})
    elif function is not distributed.run_in_processes:
        call(**{name: value for name, (value, _) in given.items()})


def test_every_public_function_is_in_the_table():
    modules = (
        datasets, distributed, gradient_clipping, mcsgd, models, monitor, objective, port, probes, samplers, schedules,
        stacked, sweep, training,
    )  # fmt: skip
    for module in modules:
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            inside = (getattr(value, "__module__", None) or "").startswith(module.__name__)
            if not inside or name[0] == "_" or not (inspect.isfunction(value) or inspect.isclass(value)):
                continue
            results = module is probes and inspect.isclass(value)
            blocks = module is models and inspect.isclass(value)
            assert results or blocks or value in CALLS or value in WITHOUT_WRONG_VALUES, f"{module.__name__}.{name}"


@pytest.mark.parametrize(
    ("names", "wrong", "suggested"),
    [
        (EXPERIMENTS, "perils.twotowers", "perils.two_towers"),
        (claims.CLAIMS, "kari_ten_layer", "kari-ten-layers"),
        (predictions.PREDICTIONS, "other-sample", "other-samples"),
        (NORMS, "groupnorm", "group_norm"),
    ],
)
def test_an_unknown_name_in_a_registry_is_answered_with_the_right_one(names, wrong, suggested):
    with pytest.raises(KeyError, match=rf"no '{wrong}' among {len(names)} names; did you mean '{suggested}'\?"):
        names[wrong]
    assert names.get(wrong) is None and wrong not in names


@pytest.mark.parametrize(
    ("call", "suggested"),
    [
        (lambda: datasets.load("cifar-10"), "cifar10"),
        (lambda: datasets.load("Three Points"), "three_points"),
        (lambda: datasets.load("wide_variation", num_class=3), "num_classes"),
        (lambda: datasets.mnist(splits="train"), "('train',)"),
        (lambda: training.fit(network(), "digit", batch_size=3, lr=0.1, progress=False), "digits"),
        (lambda: training.fit(network(), POINTS, batch_size=3, lr=0.1, optimiser="adamw", progress=False), "AdamW"),
        (lambda: training.fit(network(), POINTS, batch_size=3, lr=0.1, batches="suffled", progress=False), "shuffled"),
        (lambda: sweep.Run(network, "digts", 3, 0.1, 0), "digits"),
        (lambda: models.mlp((3, 4, 2), "groupnorm"), "group_norm"),
        (lambda: models.mlp((3, 4, 2), "BatchNorm"), "batch_norm"),
        (lambda: models.mlp((3, 4, 2), placement="befor"), "before"),
        (lambda: next(mcsgd.minimize(problem(), {}, [], 0.1, 0.1, oracle="runing")), "running"),
        (lambda: next(mcsgd.minimize(problem(), {}, [], 0.1, 0.1, estimator="exponental")), "exponential"),
    ],
)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(call, suggested):
    with pytest.raises((TypeError, ValueError), match=r"; did you mean .*\?$") as caught:
        call()
    assert f"did you mean {suggested}?" in str(caught.value) or f"did you mean {suggested!r}?" in str(caught.value)


def losses_of(sampler=samplers.shuffled, **settings):
    given = {"batch_size": 3, "lr": 0.1, "epochs": 2, "checkpoints": 2, "progress": False, "batches": sampler}
    return training.fit(network(), POINTS, **given | settings).train_loss


FLAGS = {
    "shuffle_samples": samplers.FixedBatches,
    "shuffle_batches": samplers.FixedBatches,
    "reshard": lambda reshard: samplers.PerWorker(0, 2, reshard=reshard),
    "record_step_loss": lambda record_step_loss: sweep.Run(
        network, "digits", 3, 0.1, 0, record_step_loss=record_step_loss
    ),
    "progress": lambda progress: losses_of(progress=progress),
    "strict": lambda strict: bnlib.convert(network(), strict=strict),
    "dry_run": lambda dry_run: bnlib.convert(network(), dry_run=dry_run),
    "inference": lambda inference: bnlib.diagnose(network(), [X], inference=inference),
    "warn": lambda warn: monitor.Monitor(network(), warn=warn),
    "of_inputs": lambda of_inputs: probes.activation_statistics(network(), X, of_inputs=of_inputs),
    "relative": lambda relative: probes.landscape_along_gradient(network(), of_model, [0.1], relative=relative),
    "geometric": lambda geometric: probes.step_sizes(0.1, geometric=geometric),
    "per_unit": lambda per_unit: probes.effective_learning_rate(0.1, X, per_unit=per_unit),
    "simplified": lambda simplified: probes.theorem_4_2(torch.sum, X, simplified=simplified),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_text_is_no_truth_value(name):
    with pytest.raises(TypeError, match=f"^{name} must be True or False, got 'no'$"):
        FLAGS[name](**{name: "no"})


@pytest.mark.parametrize("name", ["loss", "forward"])
def test_the_doctor_names_what_is_no_function(name):
    with pytest.raises(TypeError, match=f"{name} must be a function or None, got 'mse'"):
        bnlib.diagnose(network(), [X], **{name: "mse"})


@pytest.mark.parametrize("wrong", [-0.5, float("nan"), float("inf"), "x", True, torch.tensor(1.0)])
def test_a_schedule_is_checked_at_every_step(wrong):
    with pytest.raises((TypeError, ValueError), match=r"schedule\(1\) must be a finite number, at least 0, got"):
        losses_of(schedule=lambda epoch: wrong if epoch >= 1 else 1.0)


@pytest.mark.parametrize(
    "wrong", [torch.arange(2), torch.ones(3), torch.zeros(3, dtype=torch.bool), [0, 1, 2], torch.zeros(1, 3).long()]
)
def test_what_a_sampler_yields_is_checked(wrong):
    with pytest.raises(ValueError, match=r"batches must yield 3 indices of samples each, shape \(3,\), got"):
        losses_of(lambda labels, batch_size, seed: iter([wrong]))
    with pytest.raises(TypeError, match=r"batches must return an iterator of indices, see bnlib.samplers, got 5"):
        losses_of(lambda labels, batch_size, seed: 5)


def test_the_integers_of_numpy_count_as_integers():
    three, zero = np.int64(3), np.int64(0)
    assert losses_of(batch_size=three, seed=zero) == losses_of(batch_size=3, seed=0)
    for sampler in (samplers.single_label, samplers.FixedBatches(), samplers.MaxLabelsPerBatch(np.int64(2))):
        assert next(sampler(LABELS, three, zero)).equal(next(sampler(LABELS, 3, 0)))
    made = models.mlp((np.int64(3), three, three), bnlib.BatchNorm, seed=zero)
    assert made[1].weight.equal(models.mlp((3, 3, 3), bnlib.BatchNorm, seed=0)[1].weight)
    assert probes.filter_normalised_direction(made, zero).keys() == dict(made.named_parameters()).keys()
    assert datasets.wide_variation(three, three, three, seed=zero).train_x.shape == (3, 3)


@pytest.mark.parametrize("wrong", [-100, -1, 3])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_out_of_range_is_named(split, wrong):
    labels = {name: torch.tensor([0, 1, wrong if name == split else 2]) for name in ("train", "test")}
    with pytest.raises(ValueError, match=rf"{split}_y must hold classes from 0 to num_classes - 1 = 2, got {wrong}"):
        datasets.Dataset("mine", X[:3], labels["train"], X[:3], labels["test"], 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.uint8, torch.bool])
def test_classes_of_another_type_are_named(dtype):
    with pytest.raises(TypeError, match=r"test_y must hold classes as torch.int64, got torch.*y.long\(\)"):
        datasets.Dataset("mine", X[:3], torch.arange(3), X[:3], torch.tensor([0, 1, 1], dtype=dtype), 3)


def test_an_empty_test_set_is_named():
    empty = datasets.Dataset("mine", POINTS.train_x, POINTS.train_y, X[:0], torch.arange(0), 3)
    with pytest.raises(ValueError, match="data must have a test set of at least one sample, got Dataset"):
        training.fit(network(), empty, batch_size=3, lr=0.1, progress=False)
