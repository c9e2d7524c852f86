"""The command ``python -m bnlib``: run experiments, check the claims of the papers, and diagnose a model."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bnlib.distributed import join_process_group, rank_and_world_size
from bnlib.doctor import diagnose_file
from bnlib.experiments.framework import registry
from bnlib.experiments.framework.experiment import Experiment


def main(arguments: list[str] | None = None) -> int:
    """Run the command that ``arguments`` (by default those of the command line) name and return its exit status."""
    options = _parser().parse_args(arguments)
    return options.do(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bnlib", description="The experiments, the claims and the doctor of The Batch Norm Book."
    )
    groups = parser.add_subparsers(title="commands", required=True)
    experiments = groups.add_parser("experiments", help="list or run the experiments")
    actions = experiments.add_subparsers(title="actions", required=True)

    listing = actions.add_parser("list", help="print the name and the question of each experiment")
    listing.set_defaults(do=_list)

    running = actions.add_parser(
        "run",
        help="do the runs that are not in the cache yet and write the result to data/results",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    running.add_argument(
        "names", nargs="+", choices=sorted(registry.EXPERIMENTS), metavar="NAME", help="a name printed by list"
    )
    running.add_argument(
        "--scale",
        choices=["quick", "paper"],
        default="quick",
        help="quick takes minutes on two cores, paper has the size of the source's experiment",
    )
    running.add_argument("--device", nargs="+", default=["cpu"], help="devices to train on, e.g. cuda:0 cuda:1")
    running.add_argument("--workers", type=int, default=1, help="number of processes that work in parallel")
    running.add_argument(
        "--max-stacked", type=int, default=64, help="the most runs to train as one stacked model; limits the memory"
    )
    running.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True, help="reuse the runs that are in the cache"
    )
    running.set_defaults(do=_run)

    drawing = actions.add_parser(
        "draw", help="draw the curves of a result as SVG", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    curves = sorted(name for name, each in registry.EXPERIMENTS.items() if isinstance(each, Experiment))
    drawing.add_argument(
        "names", nargs="+", choices=curves, metavar="NAME", help="an experiment that trains: " + ", ".join(curves)
    )
    drawing.add_argument("--scale", choices=["quick", "paper"], default="quick", help="scale of the result to draw")
    drawing.add_argument(
        "--only",
        nargs="+",
        type=_setting,
        default=[],
        metavar="AXIS=VALUE",
        help="draw only the cells with this value of an axis",
    )
    drawing.add_argument("--folder", type=Path, default=Path("_build/figures"), help="folder for NAME_SCALE.svg")
    drawing.set_defaults(do=_draw)

    ledger = groups.add_parser("claims", help="print the claims of the sources and the verdict on each")
    ledger.add_argument(
        "ids", nargs="*", metavar="ID", help="claims to show in full; without an ID, each claim gets one line"
    )
    ledger.add_argument(
        "--rerun", nargs="+", default=[], metavar="ID", help="claims to judge again with new runs and new seeds"
    )
    ledger.add_argument(
        "--format", choices=["text", "csv", "json"], default="text", help="how to print all claims, without an ID"
    )
    ledger.set_defaults(do=_claims)

    doctor = groups.add_parser(
        "diagnose",
        help="find problems with the batch normalisation of a model",
        epilog="Exit status: 0 if no error is found, 1 if an error is found, 2 if FILE:FUNCTION cannot be used.",
    )
    doctor.add_argument(
        "target",
        metavar="FILE:FUNCTION",
        help="a function without arguments that returns (model, batches), or a mapping of arguments of "
        "bnlib.diagnose, such as loss or inference",
    )
    doctor.set_defaults(do=_diagnose)
    return parser


def _setting(text: str) -> tuple[str, str]:
    axis, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"must have the form AXIS=VALUE, got {text!r}")
    return axis, value


def _list(options: argparse.Namespace) -> int:
    width = max(map(len, registry.EXPERIMENTS))
    for name, experiment in sorted(registry.EXPERIMENTS.items()):
        print(f"{name:{width}}  {experiment.question} ({experiment.source})")
    return 0


def _run(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        cache = None if options.resume else stack.enter_context(tempfile.TemporaryDirectory())
        # Under torchrun each process uses one device.
        devices = (
            options.device if len(options.device) > 1 else [stack.enter_context(join_process_group(*options.device))]
        )
        settings = {"workers": options.workers, "max_stacked": options.max_stacked, "devices": tuple(devices)}
        for name in options.names:
            experiment = registry.EXPERIMENTS[name]
            try:
                measured = experiment.save(options.scale, cache=cache, **settings)
            except KeyboardInterrupt:
                print(f"stopped; continue with: {experiment.command(options.scale)}", file=sys.stderr)
                return 130
            if rank_and_world_size()[0] == 0:
                print(f"{name}: {experiment.question}\n{experiment.table(measured)}\n")
    return 0


def _claims(options: argparse.Namespace) -> int:
    """Print all claims, or the named ones; return 1 if a new run changes an outcome and 2 if an ID is unknown."""
    from bnlib import claims

    asked = options.ids + options.rerun
    if unknown := [name for name in asked if name not in claims.CLAIMS]:
        print(f"ID must be one that `python -m bnlib claims` prints, got {unknown[0]!r}", file=sys.stderr)
        return 2
    if not asked:
        write = {"text": claims.as_text, "csv": claims.as_csv, "json": claims.as_json}[options.format]
        print(write([claims.judge(claim) for claim in claims.CLAIMS.values()]).rstrip())
    for name in options.ids:
        print(claims.report(claims.judge(claims.CLAIMS[name])), end="\n\n")
    changed = False
    for name in options.rerun:
        claim = claims.CLAIMS[name]
        before, now = claims.judge(claim), claims.judge(claim, claims.FreshResults())
        changed |= before.outcome != now.outcome
        print(f"committed result\n{claims.report(before)}\n\nnew run, scale quick\n{claims.report(now)}\n")
    return int(changed)


def _diagnose(options: argparse.Namespace) -> int:
    """Print the report; return 1 if it contains an error and 2 if FILE:FUNCTION cannot be used."""
    try:
        report = diagnose_file(options.target)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    return int(any(finding.severity == "error" for finding in report))


_MOST_PANELS = 6


def _draw(options: argparse.Namespace) -> int:
    from bnlib import figures

    for name in options.names:
        experiment = registry.EXPERIMENTS[name]
        try:
            panels = experiment.panels(options.scale, dict(options.only))
        except (FileNotFoundError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        if len(panels) > _MOST_PANELS:
            print(
                f"{name}: a figure holds at most {_MOST_PANELS} panels, got {len(panels)}; select cells, e.g. --only "
                + " ".join(f"'{axis}={value}'" for axis, value in _first_cell(experiment, options.scale).items()),
                file=sys.stderr,
            )
            return 2
        size = (3.4 * len(experiment.curves[:4]), 0.6 + 2.3 * len(panels))
        picture = figures.picture(figures.draw_curves, panels, experiment.curves, size=size)
        path = options.folder / f"{experiment.result(options.scale)}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(picture.svg)
        print(path)
    return 0


def _first_cell(experiment, scale: str) -> dict[str, str]:
    """Return the first cell's value on each axis except the norm."""
    first = next(iter(experiment.load(scale)))
    return {axis: str(value) for axis, value in zip(experiment.axes, first, strict=True) if axis != "norm"}


if __name__ == "__main__":
    # A program such as head may close the pipe early; that is not an error.
    try:
        sys.exit(main())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
