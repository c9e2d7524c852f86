"""Final values of the repeated figures 4, 5, 7, 8 and 9 of Lian and Liu (2019), as rows of tables.

The experiments are ``lian_figure_4`` and so on; their networks and norms are those of ``objective.lian_setup``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np

from bnlib.experiments.framework.experiment import Scale
from bnlib.experiments.full_normalization import (
    lian_figure_4,
    lian_figure_5,
    lian_figure_7,
    lian_figure_8,
    lian_figure_9,
)

EXPERIMENTS = {
    4: lian_figure_4.EXPERIMENT,
    5: lian_figure_5.EXPERIMENT,
    7: lian_figure_7.EXPERIMENT,
    8: lian_figure_8.EXPERIMENT,
    9: lian_figure_9.EXPERIMENT,
}
"""The experiments by the number of the figure in the paper."""
NORMS = {
    "BN": "BN",
    "FN, batch": "FN, same batch",
    "FN, literal": "FN, literal",
    "FN, constant": "FN, constant",
    "FN, running": "FN, running",
    "FN, leave_one_out": "FN, leave one out",
    "FN, default": "FN, default",
}
"""Every norm of the experiments, and its name in tables and figures."""
NETWORKS = ("convolutional", "fully connected")
DATA_SETS: dict[Scale, str] = {"quick": "digits", "paper": "MNIST"}
"""The data set of figures 4, 7 and 9 at each scale."""


@cache
def load(number: int, scale: Scale) -> dict[tuple, dict]:
    """Load the committed result of one figure of the paper."""
    return EXPERIMENTS[number].load(scale)


def final_values(number: int, scale: Scale, *cell, curve: str = "test_error") -> np.ndarray:
    """Return the last value of a curve for each seed; errors in per cent.

    Arguments:
        number: of the figure in the paper.
        scale: of the committed result.
        cell: network and norm, and for figure 9 the batch size.
        curve: of the experiment, such as ``"train_loss"``.
    """
    values = np.array([run[-1] for run in load(number, scale)[cell][curve]], float)
    return 100 * values if curve.endswith("error") else values


def final_error_rows(
    scale: Scale,
    figures: Mapping[str, int],
    networks: Iterable[str] = NETWORKS,
    norms: Iterable[str] = tuple(NORMS),
) -> list[dict]:
    """Return the final test errors (%), a row per norm, a column per network and per figure of the paper.

    Arguments:
        scale: of the committed results.
        figures: number of the figure in the paper by the header of its column.
        networks: columns are grouped by network if there is more than one.
        norms: keys of ``NORMS``.
    """
    networks = tuple(networks)
    return [
        {"normalisation": NORMS[norm]}
        | {
            (network, header) if len(networks) > 1 else header: final_values(number, scale, network, norm)
            for network, (header, number) in itertools.product(networks, figures.items())
        }
        for norm in norms
    ]


def final_loss_rows(norms: Iterable[str] = ("BN", "FN, running", "FN, batch")) -> list[dict]:
    """Return the median final training losses of figure 4, a row per data set and network, a column per norm.

    The last column is the ratio of the first two.
    """
    rows = []
    for (scale, data_set), network in itertools.product(DATA_SETS.items(), NETWORKS):
        losses = {NORMS[n]: np.median(final_values(4, scale, network, n, curve="train_loss")) for n in norms}
        first, second, *_ = losses
        ratio = {f"{first} / {second}": losses[first] / losses[second]}
        rows.append({"data set": data_set, "network": network, **losses, **ratio})
    return rows


def final_errors_by_batches(
    batches: Mapping[str, tuple[int, tuple]], data_sets: Mapping[Scale, str] = DATA_SETS
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return the final test errors (%), by data set and kind of batch, by norm and by network; a number per seed.

    Arguments:
        batches: number of the figure in the paper, and what follows network and norm in its cells, by the name of the
            kind of batch. Norms without a result at that batch size have no networks.
        data_sets: name of the data set by scale.
    """
    return {
        f"{data_set}, {kind}": {
            name: {
                network: final_values(number, scale, network, norm, *rest)
                for network in NETWORKS
                if (network, norm, *rest) in load(number, scale)
            }
            for norm, name in NORMS.items()
        }
        for scale, data_set in data_sets.items()
        for kind, (number, rest) in batches.items()
    }


def batch_size_gap(scale: Scale, network: str, norm: str) -> float:
    """Return the median test error of figure 9 at batch size 1 less that at 16, in percentage points."""
    one, sixteen = (np.median(final_values(9, scale, network, norm, size)) for size in (1, 16))
    return float(one - sixteen)


def batch_size_gap_rows(norms: Iterable[str] = ("BN", "FN, batch", "FN, running", "FN, default")) -> list[dict]:
    """Return ``batch_size_gap``, a row per norm, a column per data set and network, MNIST first."""
    columns = [(scale, network) for scale in reversed(DATA_SETS) for network in NETWORKS]
    return [
        {"normalisation": NORMS[norm]}
        | {(DATA_SETS[scale], network): batch_size_gap(scale, network, norm) + 0.0 for scale, network in columns}
        for norm in norms
    ]
