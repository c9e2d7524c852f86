"""``python -m bnlib``: the experiments of the book, its ledger of claims, and the doctor."""

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
    """Parse the command line and do what it says."""
    options = _parser().parse_args(arguments)
    return options.do(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bnlib", description="The experiments and the doctor of The Batch Norm Book."
    )
    groups = parser.add_subparsers(title="commands", required=True)
    experiments = groups.add_parser("experiments", help="list or run the experiments")
    actions = experiments.add_subparsers(title="actions", required=True)

    listing = actions.add_parser("list", help="name each experiment and its question")
    listing.set_defaults(do=_list)

    running = actions.add_parser(
        "run",
        help="train what is not done yet and write the result to data/results",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    running.add_argument("names", nargs="+", choices=sorted(registry.EXPERIMENTS), metavar="NAME", help="see list")
    running.add_argument("--scale", choices=["quick", "paper"], default="quick", help="minutes, or the source's size")
    running.add_argument("--device", nargs="+", default=["cpu"], help="of the training, e.g. cuda:0 cuda:1")
    running.add_argument("--workers", type=int, default=1, help="processes that share out the runs")
    running.add_argument("--max-stacked", type=int, default=64, help="runs in one model at most; bounds the memory")
    running.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True, help="use what earlier calls have finished"
    )
    running.set_defaults(do=_run)

    drawing = actions.add_parser(
        "draw", help="draw the curves of a result as SVG", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    curves = sorted(name for name, each in registry.EXPERIMENTS.items() if isinstance(each, Experiment))
    drawing.add_argument(
        "names", nargs="+", choices=curves, metavar="NAME", help="one that trains: " + ", ".join(curves)
    )
    drawing.add_argument("--scale", choices=["quick", "paper"], default="quick", help="of the result")
    drawing.add_argument(
        "--only",
        nargs="+",
        type=_setting,
        default=[],
        metavar="AXIS=VALUE",
        help="leave out all other values of an axis",
    )
    drawing.add_argument("--folder", type=Path, default=Path("_build/figures"), help="where NAME_SCALE.svg goes")
    drawing.set_defaults(do=_draw)

    ledger = groups.add_parser("claims", help="what the sources claim, and what came out")
    ledger.add_argument("ids", nargs="*", metavar="ID", help="show these in full; without any, a line for each claim")
    ledger.add_argument(
        "--rerun", nargs="+", default=[], metavar="ID", help="run anew what these rest on, with new seeds"
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
        raise argparse.ArgumentTypeError(f"must be AXIS=VALUE, got {text!r}")
    return axis, value


def _list(options: argparse.Namespace) -> int:
    width = max(map(len, registry.EXPERIMENTS))
    for name, experiment in sorted(registry.EXPERIMENTS.items()):
        print(f"{name:{width}}  {experiment.question} ({experiment.source})")
    return 0


def _run(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        cache = None if options.resume else stack.enter_context(tempfile.TemporaryDirectory())
        # torchrun gives each of its processes one device.
        devices = (
            options.device if len(options.device) > 1 else [stack.enter_context(join_process_group(*options.device))]
        )
        settings = {"workers": options.workers, "max_stacked": options.max_stacked, "devices": tuple(devices)}
        for name in options.names:
            experiment = registry.EXPERIMENTS[name]
            try:
                measured = experiment.save(options.scale, cache=cache, **settings)
            except KeyboardInterrupt:
                print(f"stopped; go on with: {experiment.command(options.scale)}", file=sys.stderr)
                return 130
            if rank_and_world_size()[0] == 0:
                print(f"{name}: {experiment.question}\n{experiment.table(measured)}\n")
    return 0


def _claims(options: argparse.Namespace) -> int:
    """Print the ledger or parts of it; the exit status is 1 if a new run changes a verdict, 2 if there is no claim."""
    from bnlib import claims

    asked = options.ids + options.rerun
    if unknown := [name for name in asked if name not in claims.CLAIMS]:
        print(f"ID must be one of those that `python -m bnlib claims` lists, got {unknown[0]!r}", file=sys.stderr)
        return 2
    if not asked:
        print(claims.as_text([claims.judge(claim) for claim in claims.CLAIMS.values()]))
    for name in options.ids:
        print(claims.report(claims.judge(claims.CLAIMS[name])), end="\n\n")
    changed = False
    for name in options.rerun:
        claim = claims.CLAIMS[name]
        before, now = claims.judge(claim), claims.judge(claim, claims.FreshResults())
        changed |= before.verdict != now.verdict
        print(f"committed\n{claims.report(before)}\n\nrun anew, scale quick\n{claims.report(now)}\n")
    return int(changed)


def _diagnose(options: argparse.Namespace) -> int:
    """Print the report; the exit status is 1 if it has an error, 2 if FILE:FUNCTION cannot be used."""
    try:
        report = diagnose_file(options.target)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    return int(any(finding.severity == "error" for finding in report))


_PANELS = 6


def _draw(options: argparse.Namespace) -> int:
    from bnlib import figures

    for name in options.names:
        experiment = registry.EXPERIMENTS[name]
        try:
            panels = experiment.panels(options.scale, dict(options.only))
        except (FileNotFoundError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        if len(panels) > _PANELS:
            print(
                f"{name}: {len(panels)} panels are too many for one figure; leave some out, e.g. --only "
                + " ".join(f"'{axis}={value}'" for axis, value in _some(experiment, options.scale).items()),
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


def _some(experiment, scale: str) -> dict[str, str]:
    """A value of each axis but the norm."""
    first = next(iter(experiment.load(scale)))
    return {axis: str(value) for axis, value in zip(experiment.axes, first, strict=True) if axis != "norm"}


if __name__ == "__main__":
    # A pipe that is closed early, as by head, is no error.
    try:
        sys.exit(main())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
