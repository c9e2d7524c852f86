"""Messages: every public function outside ``bnlib.norm`` names a wrong argument, its value and what it must be."""

import inspect
import re

import pytest
from public_calls import BAD, CALLS, POINTS, WITHOUT_WRONG_VALUES, network, problem

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
