"""bnlib.BatchNorm does what torch.nn.BatchNorm1d, 2d or 3d does, for random shapes, options and data."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bnlib

THEIRS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@st.composite
def shapes(draw):
    """(N, C, *spatial) with more than one value a channel."""
    spatial = draw(st.lists(st.integers(1, 4), max_size=3))
    samples = draw(st.integers(1 if any(size > 1 for size in spatial) else 2, 6))
    return (samples, draw(st.integers(1, 5)), *spatial)


OPTIONS = st.fixed_dictionaries(
    {
        "eps": st.sampled_from([1e-8, 1e-5, 1e-3, 1.0]),
        "momentum": st.one_of(st.none(), st.floats(0, 1)),
        "affine": st.booleans(),
        "bias": st.booleans(),
        "track_running_stats": st.booleans(),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
    }
)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    shape=shapes(),
    options=OPTIONS,
    steps=st.integers(1, 3),
    offset=st.floats(-1e3, 1e3),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**31),
)
def test_same_outputs_gradients_and_statistics(shape, options, steps, offset, scale, seed):
    torch.manual_seed(seed)
    ours, theirs = bnlib.BatchNorm(shape[1], **options), THEIRS[len(shape)](shape[1], **options)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    theirs.load_state_dict(ours.state_dict())
    batches = [torch.randn(shape, dtype=options["dtype"]) * scale + offset for _ in range(steps + 1)]
    above = torch.randn(shape, dtype=options["dtype"])
    for batch in batches[:-1]:
        torch.testing.assert_close(step(ours, batch, above), step(theirs, batch, above))
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(step(ours.eval(), batches[-1], above), step(theirs.eval(), batches[-1], above))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def step(layer, x, above):
    """The output and all gradients for the gradient ``above`` at the output."""
    x = x.clone().requires_grad_()
    output = layer(x)
    parameters = dict(layer.named_parameters())
    gradients = torch.autograd.grad(output, [x, *parameters.values()], above)
    return {"output": output.detach(), **dict(zip(["input", *parameters], gradients, strict=True))}
