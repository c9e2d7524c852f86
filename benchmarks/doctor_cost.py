"""Measure what ``bnlib.diagnose`` costs: passes through the model, and time in units of a step of training.

``python benchmarks/doctor_cost.py`` prints one line for each network and fault of ``doctor_models``: the forward passes
of ``diagnose`` with 12 batches, the samples in them in units of a batch, the backward passes, and its time divided by
the time of one forward and backward pass of a batch in train mode. The two are timed in turns in one run, on one
thread, by the time of the processor, so that other programs hardly matter. With ``--save`` the table also goes to
``data/results/benchmarks/doctor_cost.json``.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from doctor_models import FAULTS, MODELS, Case, outputs_and_loss, situation, trained
from layers import machine
from torch import Tensor, nn

import bnlib
from bnlib.doctor.losses import main_output
from bnlib.doctor.structures import sample_count
from bnlib.experiments.framework.results import write_result

ROUNDS, TIMED_STEPS = 3, 4
HEALTHY = tuple(name for name in FAULTS if name.startswith("healthy"))
MEASURED = ("healthy", "displaced statistics", "no targets")
"""The faults that are measured without --faults: all of them take half an hour."""


def count_passes(model: nn.Module, size: int, diagnose: Callable[[], object]) -> dict[str, float]:
    """Return the number of forward passes, of the samples in them as multiples of a batch, and of backward passes.

    The hooks are copied together with the model, so they count the passes of the copy that ``diagnose`` makes.
    """
    found = {"forward": 0, "batches": 0.0, "backward": 0}

    def before(module: nn.Module, inputs: tuple, keywords: dict) -> None:
        found["forward"] += 1
        found["batches"] += sample_count((inputs, keywords)) / size

    def after(module: nn.Module, inputs: tuple, outputs: object) -> None:
        main = main_output(outputs)
        if isinstance(main, Tensor) and main.requires_grad:
            main.register_hook(backward)

    def backward(gradient: Tensor) -> None:
        found["backward"] += 1

    hooks = [model.register_forward_pre_hook(before, with_kwargs=True), model.register_forward_hook(after)]
    diagnose()
    for hook in hooks:
        hook.remove()
    return found


def seconds(function: Callable[[], object]) -> float:
    """Return the time of the processor that a call takes."""
    began = time.process_time()
    function()
    return time.process_time() - began


def step(model: nn.Module, case: Case, batches: list) -> Callable[[], None]:
    """Return a function that runs one forward and backward pass for each batch."""

    def run() -> None:
        for batch in batches:
            outputs_and_loss(model, case, batch).backward()

    return run


def row(name: str, case: Case, fault: str, model: nn.Module) -> dict:
    """Measure one network with one fault."""
    broken, batches, options = situation(case, fault, model)
    steps = step(*_training(case, model))

    def diagnose() -> bnlib.doctor.Report:
        return bnlib.diagnose(broken, batches, **options)

    reports = []
    passes = count_passes(broken, case.size, lambda: reports.append(diagnose()))
    steps()
    ratios = []
    for k in range(ROUNDS):
        order = (diagnose, steps) if k % 2 else (steps, diagnose)
        times = {each: seconds(each) for each in order}
        ratios.append(times[diagnose] / (times[steps] / TIMED_STEPS))
    low, middle, high = (round(float(each), 1) for each in np.percentile(ratios, [25, 50, 75]))
    found = {"model": name, "fault": fault, "forward": passes["forward"], "batches": round(passes["batches"], 1)}
    return found | {"backward": passes["backward"], "steps": [low, middle, high], "codes": reports[0].codes}


def _training(case: Case, model: nn.Module) -> tuple[nn.Module, Case, list]:
    other, batches, _ = situation(case, "healthy", model)
    return other.train(), case, batches[:TIMED_STEPS]


def medians(rows: list[dict]) -> dict[str, float]:
    """Return the median number of steps over the networks without a fault, with one, and over all."""
    groups = {"healthy": [each for each in rows if each["fault"] in HEALTHY]}
    groups |= {"with a fault": [each for each in rows if each["fault"] not in HEALTHY], "all": rows}
    return {
        name: round(float(np.median([each["steps"][1] for each in group])), 1)
        for name, group in groups.items()
        if group
    }


def measure(names: list[str], faults: list[str]) -> list[dict]:
    """Measure and print all rows."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    print(f"{'model':24} {'fault':28} forward  batches  backward  steps")
    for name in names:
        model = trained(MODELS[name])
        for fault in faults:
            found = row(name, MODELS[name], fault, model)
            low, middle, high = found["steps"]
            numbers = f"{found['forward']:7}  {found['batches']:7.1f}  {found['backward']:8}"
            steps = f"{middle:5.1f} ({low:.1f} to {high:.1f})"
            print(f"{name:24} {fault:28} {numbers}  {steps:20}  {', '.join(found['codes'])}", flush=True)
            rows.append(found)
    for name, value in medians(rows).items():
        print(f"median, {name}: {value} steps")
    return rows


def main() -> None:
    """Print the table, and save it with --save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--faults", nargs="+", default=MEASURED, choices=list(FAULTS))
    parser.add_argument("--save", action="store_true", help="write data/results/benchmarks/doctor_cost.json")
    arguments = parser.parse_args()
    if not arguments.save:
        measure(arguments.models, arguments.faults)
        return
    command = "python benchmarks/doctor_cost.py --save"
    with write_result("benchmarks/doctor_cost", command, [0], device=machine("cpu")) as result:
        result["rows"] = measure(arguments.models, arguments.faults)
        result["medians"] = medians(result["rows"])


if __name__ == "__main__":
    main()
