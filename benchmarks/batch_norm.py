"""Compare the time of a forward and backward pass of bnlib.BatchNorm with that of torch.nn.BatchNorm."""

import time

import torch
from torch import nn

import bnlib

SIZES = {(128, 64, 32, 32): nn.BatchNorm2d, (4096, 256): nn.BatchNorm1d, (64, 512): nn.BatchNorm1d}


def seconds(layer: nn.Module, x: torch.Tensor, grad_output: torch.Tensor, steps: int) -> float:
    """Return the time of ``steps`` forward and backward passes, in seconds."""
    began = time.perf_counter()
    for _ in range(steps):
        layer(x).backward(grad_output)
    return time.perf_counter() - began


def main() -> None:
    """Print the median ratio of 21 interleaved rounds for each size, on the CPU with one thread."""
    torch.set_num_threads(1)
    for shape, torch_layer in SIZES.items():
        x, grad_output = torch.randn(shape, requires_grad=True), torch.randn(shape)
        steps = max(1, 2_000_000 // x.numel())
        layers = bnlib.BatchNorm(shape[1]), torch_layer(shape[1])
        rounds = [[seconds(layer, x, grad_output, steps) for layer in layers] for _ in range(21)]
        ratios = sorted(ours / other for ours, other in rounds)
        print(
            f"BatchNorm {shape!s:20} bnlib / torch.nn: {ratios[10]:.2f} (quartiles {ratios[5]:.2f} to {ratios[15]:.2f})"
        )


if __name__ == "__main__":
    main()
