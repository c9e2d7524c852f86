"""More examples: towers, dropout in front of BN, tiny batches, and what error messages are about."""

import warnings

import torch
from doctor_examples import batches, settle, train, trained
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from bnlib import models


class Twice(nn.Module):
    """A tower that sees an image and its negative, with more contrast."""

    def __init__(self):
        super().__init__()
        self.tower = models.mlp((64, 32, 10), nn.BatchNorm1d)

    def forward(self, x):
        return self.tower(x) + self.tower(6 - 4 * x)


def exposures(size):
    """Is a pixel brighter than its image? Only the statistics of a batch of one image tell its exposure."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(256, 1, 64, generator=generator)
    x = plain + 5 * torch.randn(256, 1, 1, generator=generator)
    few = list(zip(x.split(size), (plain[:, 0] > plain[:, 0].mean(1, keepdim=True)).long().split(size), strict=True))
    model = nn.Sequential(nn.Conv1d(1, 8, 1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 2, 1))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, targets in few * max(1, size // 4):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    return {"model": model, "batches": few}


class Droppy(nn.Sequential):
    """Dropout in front of each norm layer but the first, where the layer gets its variance."""

    def __init__(self, rate):
        super().__init__()
        self.append(nn.Flatten())
        for width in (64, 32, 32, 32):
            self.extend([nn.Linear(width, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(rate)])
        self.append(nn.Linear(32, 10))


def behind_dropout(rate):
    """A trained network with dropout in front of its norm layers."""
    some = [batch for seed in range(8) for batch in batches(64, 25, seed=seed)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return settle(train(Droppy(rate), some, 200), some[:40])


def without_counters(state):
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def in_one_process(broadcast):
    """A network in DistributedDataParallel, in a group of one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the argument has another name since PyTorch 2.13
            return DistributedDataParallel(trained("mlp"), broadcast_buffers=broadcast)
    finally:
        distributed.destroy_process_group()


class BatchNormalization:
    """What the row about Keras reads of Keras's layer of this name."""

    def __init__(self, trainable):
        self.trainable = trainable
