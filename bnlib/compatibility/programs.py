"""Programs that PyTorch makes of a network: compiled, exported, traced and fused, and without numbers."""

from __future__ import annotations

import copy
import io
import warnings
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bnlib.compatibility.networks import Maker, batch, check_equal, network, train
from bnlib.extras import optional


@contextmanager
def _without_warnings():
    """Hide what PyTorch says about its own deprecated functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _at_inference(make: Maker) -> nn.Module:
    model = network(make)
    train(model)
    return model.eval()


def compiled(make: Maker) -> None:
    """Train with ``torch.compile`` as without."""
    model, twin = network(make), network(make)
    train(model)
    torch._dynamo.reset()
    with _without_warnings():
        train(twin, call=torch.compile(twin, backend="aot_eager"))
    check_equal(twin.state_dict(), model.state_dict())


def exported(make: Maker) -> None:
    """Export a network in eval mode with ``torch.export``."""
    model = _at_inference(make)
    with _without_warnings():
        program = torch.export.export(model, (batch(0),)).module()
    check_equal(program(batch(1)), model(batch(1)))


def onnx(make: Maker) -> None:
    """Export a network in eval mode to ONNX and run it with onnxruntime."""
    onnxruntime = optional("onnxruntime", "running an exported network")
    model, file = _at_inference(make), io.BytesIO()
    with _without_warnings():
        torch.onnx.export(model, (batch(0),), dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: batch(1).numpy()})
    check_equal(torch.from_numpy(output), model(batch(1)).detach())


def traced(make: Maker) -> None:
    """Trace a network in eval mode with ``torch.jit.trace``."""
    model = _at_inference(make)
    with _without_warnings():
        program = torch.jit.trace(model, batch(0))
    check_equal(program(batch(1)), model(batch(1)))


def fused(make: Maker) -> None:
    """Fold a layer in eval mode into a convolution before it with PyTorch's ``fuse_conv_bn_eval``."""
    layer, convolution = make(), nn.Conv2d(3, 4, 3)
    x = batch(0, (2, 3, 6, 6))
    for seed in range(3):
        layer(convolution(batch(seed, (2, 3, 6, 6)))).sum().backward()
    both = nn.Sequential(convolution, layer).eval()
    layer = layer.domains[layer.domain] if hasattr(layer, "domains") else layer
    check_equal(fuse_conv_bn_eval(convolution.eval(), layer)(x), both(x), 1e-4)


def fake(make: Maker) -> None:
    """Run a step in train mode under ``FakeTensorMode``, which computes shapes only."""
    with FakeTensorMode():
        model = network(make)
        assert model(torch.ones(6, 4)).shape == (6, 2)
        train_step = model(torch.ones(6, 4)).sum()
        train_step.backward()
    assert all(value.grad is not None and value.grad.shape == value.shape for value in model.parameters())


def in_inference_mode(make: Maker) -> None:
    """Run a network under ``torch.inference_mode`` in both modes, and train it afterwards."""
    model, twin = network(make), network(make)
    for each, context in ((model, torch.no_grad()), (twin, torch.inference_mode())):
        train(each)
        with context:
            each.out = [each(batch(5)), each.eval()(batch(5))]
        train(each.train())
    check_equal([value.clone() for value in twin.out], model.out)
    check_equal(twin.state_dict(), model.state_dict())


def autocast(make: Maker) -> None:
    """Train under autocast to bfloat16: parameters stay float32, outputs within 5 % of the largest."""
    model, twin = network(make), network(make)
    train(copy.deepcopy(model))
    expected = model(batch(0))
    with torch.autocast("cpu", torch.bfloat16), _without_warnings():
        found = twin(batch(0))
    found.float().square().mean().backward()
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(value.dtype == value.grad.dtype == torch.float32 for value in twin.parameters())


def channels_last(make: Maker) -> None:
    """Train on images in channels-last layout as on contiguous ones; the output stays channels-last."""
    layers, results = [make(), make()], []
    for layer, memory_format in zip(layers, (torch.contiguous_format, torch.channels_last), strict=True):
        x = batch(0, (3, 4, 5, 5)).contiguous(memory_format=memory_format).requires_grad_()
        y = layer(x)
        assert y.is_contiguous(memory_format=memory_format)
        results.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
    check_equal(*results, 1e-4)
    check_equal(layers[0].state_dict(), layers[1].state_dict())
