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


class RootMeanSquareNorm(nn.Module):
    """A norm of one's own that computes in the number format of its input."""

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def with_plain_tensor():
    """A network with a norm layer whose running mean is not a buffer."""
    model = trained("mlp")
    model[2].own_mean = torch.zeros(32)
    return model


def by_hand(unbiased):
    """Batch norm as a function, with one of the two variances."""
    return lambda x: (x - x.mean(0)) / (x.var(0, unbiased=unbiased) + 1e-5).sqrt()


def norm_replaced(steps):
    """A trained network with group norm in place of batch norm, the same gamma and beta, and more training."""
    model = trained("mlp")
    for place, layer in enumerate(model):
        if isinstance(layer, nn.BatchNorm1d):
            model[place] = nn.GroupNorm(4, 32)
            model[place].load_state_dict({name: getattr(layer, name) for name in ("weight", "bias")})
    return train(model, batches(count=max(steps, 1)), steps).eval()


def on_single_images(norm, steps=100):
    """A network that takes the exposure out of images, trained on one image at a time, and a batch for it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), norm(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), norm(8), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1),
        )  # fmt: skip
        clean = batches(count=1, size=steps)[0][0]
        seen = (clean + 3 * torch.randn(steps, 1, 1, 1)) * (0.5 + 2 * torch.rand(steps, 1, 1, 1))
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for image, target in zip(seen.split(1), clean.split(1), strict=True):
        optimiser.zero_grad()
        nn.functional.mse_loss(model(image), target).backward()
        optimiser.step()
    return {"network": model, "images": seen[:1], "seen": seen, "clean": clean}
