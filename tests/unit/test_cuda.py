"""Layers and training on a GPU: the same results as on the CPU. Skipped, visibly, where there is none."""

import copy
import functools

import pytest
import torch

import bnlib
from bnlib import datasets, models, training
from bnlib.reference import ORACLES
from bnlib.sweep import Run, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SHAPES = [(6, 4), (5, 3, 7), (4, 3, 5, 2)]
LAYERS = {
    "BatchNorm": bnlib.BatchNorm,
    "BatchRenorm": lambda channels, **options: bnlib.BatchRenorm(channels, r_max=3.0, d_max=5.0, **options),
    **{
        f"FullNorm {oracle}": lambda channels, oracle=oracle, **options: bnlib.FullNorm(
            channels, alpha=0.3, oracle=oracle, **options
        )
        for oracle in ORACLES
    },
}


def steps(layer, device, shape, dtype, channels_last=False):
    """Outputs, gradients and buffers of three steps and one evaluation."""
    layer, generator, results = copy.deepcopy(layer).to(device), torch.Generator().manual_seed(0), []
    for _ in range(3):
        x, g = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
        if channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        y = layer(x)
        grads = torch.autograd.grad(y, (x, layer.weight, layer.bias), g)
        results += [y.detach(), *grads]
    results += [layer.eval()(x).detach(), *layer.buffers()]
    return [each.cpu() for each in results]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_cpu(name, shape, dtype, channels_last):
    layer = LAYERS[name](shape[1], dtype=dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    ours, theirs = (steps(layer, device, shape, dtype, channels_last) for device in ("cuda", "cpu"))
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_under_autocast_stays_a_half(name, dtype):
    layer = LAYERS[name](4).to("cuda")
    with torch.autocast("cuda", dtype=dtype):
        y = layer(torch.randn(16, 4, device="cuda", dtype=dtype))
    y.float().square().mean().backward()
    assert y.dtype == dtype and torch.isfinite(layer.weight.grad).all()


@pytest.mark.parametrize("oracle", ORACLES)
def test_offset_1e4_in_float32(oracle):
    layer = bnlib.FullNorm(32, alpha=0.3, oracle=oracle).cuda()
    precise = bnlib.FullNorm(32, alpha=0.3, oracle=oracle).cuda().double()
    for k in range(20):
        x = torch.randn(64, 32, generator=torch.Generator().manual_seed(k)).cuda() + 1e4
        assert (layer(x) - precise(x.double())).abs().max() < 1e-3


def test_scaled_gradients_that_overflow_do_not_stay():
    layer = bnlib.FullNorm(4).cuda()
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(40):
        with torch.autocast("cuda", dtype=torch.float16):
            loss = layer(torch.randn(16, 4, device="cuda").half()).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
    assert all(torch.isfinite(each).all() for each in layer.state_dict().values())


@pytest.mark.parametrize("norm", [bnlib.BatchNorm, bnlib.FullNorm])
@pytest.mark.parametrize("max_stacked", [1, 3])
def test_training_gives_the_curves_of_the_cpu(norm, max_stacked, tmp_path):
    model = functools.partial(models.mlp, (64, 20, 10), norm)
    runs = [Run(model, "digits", 64, 0.1, seed, epochs=1, checkpoints=4) for seed in range(3)]
    on_cpu, on_gpu = (
        run(runs, tmp_path, max_stacked=max_stacked, devices=(device,), progress=False) for device in ("cpu", "cuda")
    )
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert ours.epoch == theirs.epoch
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-2)


def test_convolutions_train_as_one_model():
    data, settings = datasets.load("digits"), {"batch_size": 32, "epochs": 1, "checkpoints": 2, "device": "cuda"}
    networks = [models.small_cnn(norm=bnlib.FullNorm, seed=seed) for seed in range(3)]
    *_, (_, _, together) = training.iterate_many(networks, data, lrs=[0.01] * 3, seeds=range(3), **settings)
    alone = training.fit(models.small_cnn(norm=bnlib.FullNorm), data, lr=0.01, progress=False, **settings)
    assert together[0].train_loss == pytest.approx(alone.train_loss, rel=1e-2)
