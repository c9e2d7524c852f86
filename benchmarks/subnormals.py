"""Do subnormal numbers cost time in a long training? Count them, and time steps with and without them.

A float32 below 1.2e-38 is subnormal. Decaying averages can get there: the momentum of a unit that died, for example.
``python benchmarks/subnormals.py`` trains networks on digits and prints the largest share of subnormal numbers at 20
times of the training, in the gradients, in the buffers of the layers and in the state of the optimiser; and, at the end
of the training, the time of its steps over that of the same steps where ``torch.set_flush_denormal`` makes them 0. The
last rows are the worst case: operations on nothing but subnormal numbers, over the same on ordinary ones. With
``--save`` it also writes ``data/results/benchmarks/subnormals_cpu.json``.
"""

import copy
import itertools
import time
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from layers import main
from torch import Tensor, nn
from torch.nn import functional as F

import bnlib
from bnlib import datasets, models, samplers

STEPS, BATCH_SIZE = 4000, 64
OPTIMISERS = {
    "SGD": partial(torch.optim.SGD, lr=0.3),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "Adam": partial(torch.optim.Adam, lr=0.01),
}
NORMS = {"without normalisation": None, "BatchNorm": bnlib.BatchNorm, "FullNorm": bnlib.FullNorm}


def share_of_subnormals(tensors: Iterable[Tensor]) -> float:
    """Return the share of subnormal numbers among the values of float32 tensors; 0 without any value."""
    tensors = [each for each in tensors if each is not None and each.dtype is torch.float32 and each.dim() > 0]
    found = sum(int(((each != 0) & (each.abs() < torch.finfo(torch.float32).tiny)).sum()) for each in tensors)
    return found / max(1, sum(each.numel() for each in tensors))


class Training:
    """A training that can be copied: the network, its optimiser, and the batches."""

    def __init__(self, norm, make_optimiser) -> None:
        self.data = datasets.load("digits")
        self.model = models.mlp((64, 100, 100, 10), norm, seed=0)
        self.optimiser = make_optimiser(self.model.parameters())

    def train(self, batches: Iterable[Tensor]) -> None:
        """Make a step on each batch."""
        for index in batches:
            self.optimiser.zero_grad(set_to_none=False)
            F.cross_entropy(self.model(self.data.train_x[index]), self.data.train_y[index]).backward()
            self.optimiser.step()

    def shares(self) -> dict[str, float]:
        """Return the share of subnormal numbers in each kind of tensors."""
        state = [value for values in self.optimiser.state.values() for value in values.values()]
        return {
            "gradients": share_of_subnormals(each.grad for each in self.model.parameters()),
            "buffers": share_of_subnormals(self.model.buffers()),
            "optimiser": share_of_subnormals(each for each in state if isinstance(each, Tensor)),
        }


def seconds(work: Callable[[], None], flush: bool) -> float:
    """Return the processor time of some work, with or without subnormal numbers."""
    torch.set_flush_denormal(flush)
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        torch.set_flush_denormal(False)


def quartiles(ratios: list[float]) -> list[float]:
    """Return the quartiles of the ratios."""
    return [round(float(each), 3) for each in np.percentile(ratios, [25, 50, 75])]


def compare(norm_name: str, optimiser_name: str) -> dict:
    """Train, count and time."""
    training = Training(NORMS[norm_name], OPTIMISERS[optimiser_name])
    batches = samplers.shuffled(training.data.train_y, BATCH_SIZE, seed=0)
    found: list[dict[str, float]] = []
    for _ in range(20):
        training.train(itertools.islice(batches, STEPS // 20))
        found.append(training.shares())
    pair, ratios = {False: training, True: copy.deepcopy(training)}, []
    for number in range(32):  # the first two rounds are not counted
        some = list(itertools.islice(batches, 10))
        order = (False, True) if number % 2 else (True, False)
        taken = {flush: seconds(lambda flush=flush, some=some: pair[flush].train(some), flush) for flush in order}
        ratios.append(taken[False] / taken[True])
    largest = {name: round(max(each[name] for each in found), 5) for name in found[0]}
    times = quartiles(ratios[2:])
    text = ", ".join(f"{name} {share:.2%}" for name, share in largest.items())
    print(f"{norm_name:21} {optimiser_name:8}: {text}; time with over without {times[1]:.2f}", flush=True)
    return {"norm": norm_name, "optimiser": optimiser_name, "largest_share": largest, "quartiles_of_ratio": times}


def worst_case() -> list[dict]:
    """Compare operations on subnormal numbers with the same on ordinary ones."""
    ordinary, layer = torch.rand(256, 256) + 0.5, nn.BatchNorm1d(256)
    operations = {
        "product of matrices": torch.mm,
        "sum": torch.add,
        "product": torch.mul,
        "lerp": lambda x, y: torch.lerp(x, y, 0.03),
        "BatchNorm": lambda x, y: layer(x),
    }
    rows = []
    for name, operation in operations.items():
        ratios = []
        for _ in range(60):
            taken = []
            for x in (ordinary * 1e-39, ordinary):
                work = partial(operation, x, ordinary)
                taken.append(seconds(lambda work=work: [work() for _ in range(5)], False))
            ratios.append(taken[0] / taken[1])
        rows.append({"operation": name, "quartiles_of_ratio": quartiles(ratios)})
        print(f"only subnormal numbers, {name}: {rows[-1]['quartiles_of_ratio'][1]:.2f} of the time", flush=True)
    return rows


def compare_all(device: str) -> list[dict]:
    """Compare all networks and optimisers."""
    return [compare(*each) for each in itertools.product(NORMS, OPTIMISERS)] + worst_case()


if __name__ == "__main__":
    main("subnormals", __doc__, compare_all)
