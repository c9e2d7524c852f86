"""Compare the time of a forward pass at inference of a convolution with a norm, with that of the convolution alone.

``python benchmarks/inference.py`` prints the ratios; with ``--save`` it also writes
``data/results/benchmarks/inference_DEVICE.json``. Batch norm in eval mode can be folded into the convolution; the other
norms need the statistics of each sample. The convolutions have a bias, as after folding. A ratio is that of the fastest
rounds, because other programs on the machine can only make a round slower.
"""

import time

import numpy as np
import torch
from layers import main
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import bnlib

SHAPE = (4, 64, 32, 32)
GROUPS = {"3 x 3": 1, "depthwise 3 x 3": SHAPE[1]}
ROUNDS, PASSES = 40, 1


def layers(channels: int, groups: int) -> dict[str, nn.Module]:
    """Return layers in eval mode by name; the first one is the baseline."""

    def make() -> nn.Conv2d:
        return nn.Conv2d(channels, channels, 3, padding=1, groups=groups)

    with_batch_norm = nn.Sequential(make(), nn.BatchNorm2d(channels)).eval()
    made = {"convolution": make(), "batch norm, folded": fuse_conv_bn_eval(*with_batch_norm)}
    made["batch norm, not folded"] = with_batch_norm
    for name in ("group_norm", "layer_norm"):
        norm = bnlib.NORMS[name]
        made[norm.title.lower()] = norm.apply(make())
    return {name: layer.eval() for name, layer in made.items()}


@torch.inference_mode()
def seconds(layer: nn.Module, x: torch.Tensor, passes: int) -> float:
    """Return the time of so many forward passes, in seconds: on the CPU only that of this process."""
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    clock = time.perf_counter if x.is_cuda else time.process_time
    wait()
    began = clock()
    for _ in range(passes):
        layer(x)
    wait()
    return clock() - began


def compare_all(device: str) -> list[dict]:
    """Return the ratio of each layer's time to the convolution's, from the fastest of many interleaved rounds."""
    rows = []
    for kind, groups in GROUPS.items():
        made = {name: layer.to(device) for name, layer in layers(SHAPE[1], groups).items()}
        x = torch.randn(SHAPE, device=device)
        times = np.array([[seconds(layer, x, PASSES) for layer in made.values()] for _ in range(ROUNDS + 1)])[1:]
        ratios = times.min(0) / times.min(0)[0]
        for name, ratio in zip(list(made)[1:], ratios[1:], strict=True):
            print(f"{kind:16} {name:24} {ratio:5.2f}")
            rows.append({"convolution": kind, "layer": name, "shape": SHAPE, "ratio": round(float(ratio), 3)})
    return rows


if __name__ == "__main__":
    main("inference", __doc__, compare_all)
