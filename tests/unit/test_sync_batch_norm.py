"""SyncBatchNorm: several processes, each with its part of a batch, are one process with all of it."""

import numpy as np
import pytest
import torch
import torch.distributed
from torch import nn
from torch.utils.checkpoint import checkpoint

import bnlib
from bnlib import distributed

STEPS, SHAPE = 3, (9, 4, 2)
# Samples of each process. They differ, and one may have none.
PARTS = {2: [5, 4], 3: [2, 0, 7]}
BEHIND = {"nothing": nn.Identity, "a layer that saves its input": lambda: nn.Linear(2, 2)}
OFFSETS = (0.0, 1e4, 1e6, 1e8)
OPTIONS = {"defaults": {}, "cumulative": {"momentum": None}, "not affine": {"affine": False}}


def batch(step):
    generator = torch.Generator().manual_seed(step)
    # A constant channel; an offset must not cost digits.
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.0, 0.1]).view(4, 1)
    g = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return x + torch.tensor([0.0, 1e3, 5.0, -1.0]).view(4, 1), g


def train(kind, part, **options):
    """Outputs and gradients of each step on a part of the batches, and the state at the end."""
    layer = kind(4, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.arange(4) - 1.5)
    steps = []
    for step in range(STEPS):
        x, g = (each[part] for each in batch(step))
        x = x.clone().requires_grad_()
        y = layer(x)
        found = torch.autograd.grad(y, (x, *layer.parameters()), g)
        steps.append([each.detach().numpy() for each in (y, *found)])
    return steps, {name: value.numpy() for name, value in layer.state_dict().items()}


def of_one(parts):
    torch.set_num_threads(1)
    rank, _ = distributed.rank_and_world_size()
    begin = sum(parts[:rank])
    part = slice(begin, begin + parts[rank])
    found = {name: train(bnlib.SyncBatchNorm, part, **each) for name, each in OPTIONS.items()}
    single = bnlib.SyncBatchNorm(2)
    alone = single(torch.full((int(rank == 0), 2), 7.0)), single.running_mean, single.running_var
    found["one value"] = [each.detach().clone().numpy() for each in alone]
    x = torch.randn(4, 2, requires_grad=True)
    try:
        nn.SyncBatchNorm(2)(x)
    except ValueError as error:
        found["torch"] = str(error)
    try:
        single(x.double())
    except TypeError as error:
        found["type"] = str(error)
    for name, behind in BEHIND.items():
        found["checkpointed", name] = {way: batches_of_a_checkpoint(way, behind) for way in (False, True)}
    found["far from 0"] = {offset: far_from_0(part, offset) for offset in OFFSETS}
    (first,) = torch.autograd.grad(single(x).square().sum(), x, create_graph=True)
    try:
        first.sum().backward()
    except RuntimeError as error:
        found["twice"] = str(error)
    return found


def batches_of_a_checkpoint(reentrant, behind=nn.Identity):
    """How often a checkpointed batch is counted, and whether its output and gradient are those without checkpoint."""
    results = []
    for checkpointed in (True, False):
        torch.manual_seed(0)
        layer, x = bnlib.SyncBatchNorm(2), torch.randn(4, 2, requires_grad=True)
        block = nn.Sequential(layer, behind())
        y = checkpoint(block, x, use_reentrant=reentrant) if checkpointed else block(x)
        y.pow(3).sum().backward()
        results.append((layer.num_batches_tracked.item(), y.detach(), x.grad))
    same = all(torch.allclose(*pair) for pair in zip(results[0][1:], results[1][1:], strict=True))
    return results[0][0], same


def far_from_0(part, offset):
    """The output, the gradient and the running variance for a batch in float64 with this mean."""
    torch.manual_seed(0)
    whole = torch.randn(9, 2, dtype=torch.float64) + offset
    x = whole[part].clone().requires_grad_()
    layer = bnlib.SyncBatchNorm(2, dtype=torch.float64, momentum=1.0)
    y = layer(x)
    y.pow(3).sum().backward()
    return [each.detach().numpy() for each in (y, x.grad, layer.running_var)]


@pytest.fixture(scope="module", params=sorted(PARTS))
def together(request):
    return distributed.run_in_processes(of_one, request.param, PARTS[request.param])


@pytest.mark.parametrize("name", OPTIONS)
def test_processes_together_equal_one_on_the_joined_batch(together, name):
    expected, state = train(bnlib.BatchNorm, slice(None), **OPTIONS[name])
    for step, (y, dx, *of_parameters) in enumerate(expected):
        found = [each[name][0][step] for each in together]
        for number, whole in enumerate((y, dx)):
            joined = torch.cat([torch.from_numpy(each[number]) for each in found])
            torch.testing.assert_close(joined, torch.from_numpy(whole), rtol=1e-7, atol=1e-7)
        for number, whole in enumerate(of_parameters, 2):
            summed = torch.from_numpy(sum(each[number] for each in found))
            torch.testing.assert_close(summed, torch.from_numpy(whole), rtol=1e-7, atol=1e-7)
    for each in together:
        assert list(each[name][1]) == list(state) == list(nn.SyncBatchNorm(4, **OPTIONS[name]).state_dict())
        for key, value in state.items():
            torch.testing.assert_close(torch.tensor(each[name][1][key]), torch.tensor(value), rtol=1e-9, atol=1e-9)


def test_one_value_in_all_processes_gives_beta_and_leaves_the_variance(together):
    for rank, each in enumerate(together):
        output, mean, variance = each["one value"]
        assert output.tolist() == [[0.0, 0.0]] * (rank == 0)
        assert mean.tolist() == pytest.approx([0.7, 0.7]) and variance.tolist() == [1.0, 1.0]


def test_torchs_own_refuses_the_cpu_and_a_second_derivative_is_refused(together):
    for each in together:
        assert "GPU" in each["torch"] and "once_differentiable" in each["twice"]


def test_alone_and_in_eval_mode_it_is_batch_norm():
    x = torch.randn(6, 3)
    ours, plain = bnlib.SyncBatchNorm(3), bnlib.BatchNorm(3)
    for _ in range(2):
        torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=0)
        ours.eval(), plain.eval()
    torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_an_input_of_another_type_is_named(together):
    for each in together:
        assert "input must have the dtype of the layer, torch.float32, got torch.float64" in each["type"]


@pytest.mark.parametrize("behind", BEHIND)
def test_how_often_a_checkpointed_batch_is_counted(together, behind):
    """As the docstring says: once in several processes, and twice in one, whatever follows the layer in the block."""
    if behind == "a layer that saves its input":
        alone = {way: batches_of_a_checkpoint(way, BEHIND[behind]) for way in (False, True)}
        assert alone == {False: (2, True), True: (2, True)}
    for each in together:
        assert each["checkpointed", behind] == {False: (1, True), True: (1, True)}


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_mean_far_from_0_costs_no_more_digits_than_in_one_process(together, offset):
    whole, gradient, variance = far_from_0(slice(None), offset)
    for number, expected in enumerate((whole, gradient)):
        joined = np.concatenate([each["far from 0"][offset][number] for each in together])
        np.testing.assert_allclose(joined, expected, rtol=0, atol=1e-12 + 1e-14 * abs(offset))
    for each in together:
        np.testing.assert_allclose(each["far from 0"][offset][2], variance, rtol=1e-12 + 1e-14 * abs(offset))
