"""The command ``python -m bnlib``: run experiments, check the claims of the papers, and diagnose a model."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import torch

from bnlib import __version__
from bnlib.arguments import suggestion
from bnlib.cache import writable_folder
from bnlib.datasets import DatasetError
from bnlib.distributed import join_process_group, rank_and_world_size
from bnlib.doctor.command_line import diagnose_command, explain_command
from bnlib.doctor.report import SEVERITIES
from bnlib.experiments.framework import registry
from bnlib.experiments.framework.experiment import Experiment
from bnlib.training import check_device

_EXIT_STATUSES = """exit status:
  0    done; diagnose found nothing that counts
  1    diagnose found something, or a claim that ran again came out differently
  2    the command cannot be carried out, or diagnose had nothing to look at; the message says why
  3    the code in the file given to diagnose failed
  130  interrupted"""
_DIAGNOSE_STATUSES = """exit status:
  0  no finding, or only findings less severe than --fail-on
  1  at least one finding as severe as --fail-on
  2  no diagnosis: the command is wrong, or the model has no layer with batch statistics or calls none
  3  the file, the function, or the model that it returns raises an error

What a finding means: python -m bnlib explain CODE"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command that ``arguments`` (by default those of the command line) name and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.do(options)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        print(f"{options.command}: interrupted", file=sys.stderr)
        return 130
    except (DatasetError, ImportError, OSError, ValueError) as error:
        print("\n".join([f"{options.command}: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the nearest of the choices."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and a suggestion if it is not one of a list of choices, and exit with status 2."""
        if found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message += suggestion(found[1], re.findall(r"[\w-]+", found[2]))
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bnlib",
        description="The experiments, the claims and the doctor of The Batch Norm Book.",
        epilog=_EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bnlib {__version__} (torch {torch.__version__})")
    groups = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    experiments = groups.add_parser("experiments", help="list or run the experiments")
    actions = experiments.add_subparsers(title="actions", required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="print the name and the question of each experiment")
    listing.set_defaults(do=_list, command="experiments list")

    running = actions.add_parser(
        "run",
        help="do the runs that are not in the cache yet and write the result to data/results",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    running.add_argument("names", nargs="+", type=_experiment, metavar="NAME", help="a name printed by list")
    running.add_argument(
        "--scale",
        choices=["quick", "paper"],
        default="quick",
        help="quick takes minutes on two cores, paper has the size of the source's experiment",
    )
    running.add_argument(
        "--device", nargs="+", type=_device, default=["cpu"], help="devices to train on, e.g. cuda:0 cuda:1"
    )
    running.add_argument("--workers", type=_count, default=1, help="number of processes that work in parallel")
    running.add_argument(
        "--max-stacked", type=_count, default=64, help="the most runs to train as one stacked model; limits the memory"
    )
    running.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True, help="reuse the runs that are in the cache"
    )
    running.set_defaults(do=_run, command="experiments run")

    drawing = actions.add_parser(
        "draw", help="draw the curves of a result as SVG", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    drawing.add_argument(
        "names",
        nargs="+",
        type=_experiment_with_curves,
        metavar="NAME",
        help="an experiment that trains: " + ", ".join(_with_curves()),
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
    drawing.set_defaults(do=_draw, command="experiments draw")

    ledger = groups.add_parser("claims", help="print the claims of the sources and the verdict on each")
    ledger.add_argument(
        "ids", nargs="*", metavar="ID", help="claims to show in full; without an ID, each claim gets one line"
    )
    ledger.add_argument(
        "--rerun", nargs="+", default=[], metavar="ID", help="claims to judge again with new runs and new seeds"
    )
    ledger.add_argument(
        "--format", choices=["text", "csv", "json"], help="how to print all claims, without an ID (default: text)"
    )
    ledger.set_defaults(do=_claims, command="claims")

    _add_doctor(groups)
    return parser


def _add_doctor(groups: argparse._SubParsersAction) -> None:
    """Add the commands ``diagnose`` and ``explain``."""
    doctor = groups.add_parser(
        "diagnose",
        help="find problems with the batch normalisation of a model",
        epilog=_DIAGNOSE_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument(
        "target",
        metavar="FILE:FUNCTION",
        help="a function without arguments that returns (model, batches), or a mapping of arguments of "
        "bnlib.diagnose, such as loss or inference",
    )
    doctor.add_argument(
        "--json", action="store_true", help="print the report as JSON; what the file prints goes to the standard error"
    )
    doctor.add_argument("--html", type=Path, metavar="FILE", help="also write the report, with pictures, as a web page")
    doctor.add_argument(
        "--fail-on",
        choices=SEVERITIES,
        default="warning",
        help="the least severe finding that gives exit status 1 (default: warning, so notes do not count)",
    )
    _add_book(doctor)
    doctor.set_defaults(do=_diagnose, command="diagnose")
    explaining = groups.add_parser("explain", help="print what a finding of diagnose means, and what to do about it")
    explaining.add_argument(
        "codes", nargs="*", metavar="CODE", help="code of a finding, such as zero-gamma; without one, all are listed"
    )
    _add_book(explaining)
    explaining.set_defaults(do=_explain, command="explain")


def _add_book(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--book",
        metavar="ADDRESS",
        help="address of the book's site, for links (default: the variable BNLIB_BOOK, or what the package names)",
    )


def _with_curves() -> list[str]:
    return sorted(name for name, each in registry.EXPERIMENTS.items() if isinstance(each, Experiment))


def _experiment(text: str) -> str:
    if text not in registry.EXPERIMENTS:
        raise argparse.ArgumentTypeError(
            f"must be a name that `experiments list` prints, got {text!r}{suggestion(text, registry.EXPERIMENTS)}"
        )
    return text


def _experiment_with_curves(text: str) -> str:
    if _experiment(text) not in _with_curves():
        raise argparse.ArgumentTypeError(
            f"must be an experiment that trains networks, see draw --help, got {text!r}, which has no curves"
        )
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer, at least 1, got {text!r}")
    return int(text)


def _device(text: str) -> str:
    try:
        check_device("", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).strip()) from error
    return text


def _setting(text: str) -> tuple[str, str]:
    axis, equals, value = text.partition("=")
    if not (axis and equals):
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
    """Print all claims, or the named ones; return 1 if a new run changes an outcome."""
    from bnlib import claims

    asked = options.ids + options.rerun
    for name in asked:
        if name not in claims.CLAIMS:
            hint = suggestion(name, claims.CLAIMS)
            raise ValueError(f"ID must be one that `python -m bnlib claims` prints, got {name!r}{hint}")
    if asked and options.format:
        raise ValueError(f"--format must be left out where claims are named, got {options.format!r}")
    if not asked:
        write = {None: claims.as_text, "text": claims.as_text, "csv": claims.as_csv, "json": claims.as_json}
        print(write[options.format]([claims.judge(claim) for claim in claims.CLAIMS.values()]).rstrip())
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
    return diagnose_command(
        options.target, as_json=options.json, html=options.html, fail_on=options.fail_on, book=options.book
    )


def _explain(options: argparse.Namespace) -> int:
    return explain_command(options.codes, book=options.book)


_MOST_PANELS = 6


def _draw(options: argparse.Namespace) -> int:
    from bnlib import figures

    folder = writable_folder("--folder", options.folder)
    for name in options.names:
        experiment = registry.EXPERIMENTS[name]
        panels = experiment.panels(options.scale, dict(options.only))
        if len(panels) > _MOST_PANELS:
            cell = _first_cell(experiment, options.scale).items()
            raise ValueError(
                f"{name}: a figure holds at most {_MOST_PANELS} panels, got {len(panels)}; select cells, e.g. --only "
                + " ".join(f"'{axis}={value}'" for axis, value in cell)
            )
        size = (3.4 * len(experiment.curves[:4]), 0.6 + 2.3 * len(panels))
        picture = figures.picture(figures.draw_curves, panels, experiment.curves, size=size)
        path = folder / f"{experiment.result(options.scale)}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(picture.svg)
        print(path)
    return 0


def _first_cell(experiment, scale: str) -> dict[str, str]:
    """Return the first cell's value on each axis except the norm."""
    first = next(iter(experiment.load(scale)))
    return {axis: str(value) for axis, value in zip(experiment.axes, first, strict=True) if axis != "norm"}


if __name__ == "__main__":
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that lack a character
    # A program such as head may close the pipe early; that is not an error.
    try:
        status = main()
        if sys.stdout is not None:
            sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + 13)  # as a shell reports a program that SIGPIPE ended
