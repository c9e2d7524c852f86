"""Small networks that the tests of the monitor train, and the training."""

import torch
from torch import nn


def perceptron():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
    )


def convolutional():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


def batches(steps, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 6, generator=generator) for _ in range(steps)]


def train(model, steps=None, inputs=None, lr=0.01, seed=5):
    """Train on random inputs or on those given; return all outputs."""
    torch.manual_seed(seed)
    optimiser = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=lr)
    outputs = [torch.zeros(0)]
    for x in batches(steps) if inputs is None else inputs:
        optimiser.zero_grad()
        output = model(x.requires_grad_())
        (output - 1).square().mean().backward()
        optimiser.step()
        outputs.append(output.detach().flatten())
    return torch.cat(outputs)
