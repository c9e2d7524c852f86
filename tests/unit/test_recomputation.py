"""A layer computes a pass again as it was, after any number of other passes, and remembers none longer than needed."""

import copy
import gc
import random

import pytest
import torch
from layers import LAYERS
from torch import nn
from torch.utils.checkpoint import checkpoint

from bnlib import stacked
from bnlib.norm import recomputation

CHANGING = [
    "BatchRenorm", "NoisyBatchNorm", "FullNorm running", "FullNorm batch", "MovingAverageBatchNorm", "OnlineNorm",
    "CrossIterationBatchNorm",
]  # fmt: skip
EACH = pytest.mark.parametrize("name", CHANGING)
REENTRANT = pytest.mark.parametrize("use_reentrant", [False, True], ids=["newer", "older"])


class Again(torch.autograd.Function):
    """A checkpoint of another library."""

    @staticmethod
    def forward(ctx, x, block):
        ctx.x, ctx.block = x.detach(), block
        return block(x)

    @staticmethod
    def backward(ctx, g):
        with torch.enable_grad():
            x = ctx.x.clone().requires_grad_()
            y = ctx.block(x)
        torch.autograd.backward(y, g)
        return x.grad, None


CALLS = {
    "newer": lambda block, x: checkpoint(block, x, use_reentrant=False),
    "older": lambda block, x: checkpoint(block, x, use_reentrant=True),
    "other": lambda block, x: Again.apply(x, block),
    "newer in newer": lambda block, x: checkpoint(CALLS["newer"], block, x, use_reentrant=False),
    "older in older": lambda block, x: checkpoint(CALLS["older"], block, x, use_reentrant=True),
    "older in newer": lambda block, x: checkpoint(CALLS["older"], block, x, use_reentrant=False),
    "newer in older": lambda block, x: checkpoint(CALLS["newer"], block, x, use_reentrant=True),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    norm = LAYERS[name]()
    norm(torch.randn(6, 4)).square().sum().backward()
    norm.zero_grad()
    return nn.Sequential(nn.Linear(4, 4), norm)


def program(model: nn.Module, seed: int, calls: list[str], plain: bool) -> list[torch.Tensor]:
    """Run a random program of passes and backward passes; return all gradients of the inputs."""
    rng, torch_rng, waiting, found = random.Random(seed), torch.Generator().manual_seed(seed), [], []
    xs = [torch.randn(rng.randint(2, 6), 4, generator=torch_rng) for _ in range(5)]  # some batches are equal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recomputation, "_MOST_PASSES", 3)
        for _ in range(30):
            x, times = rng.choice(xs).clone().requires_grad_(), rng.choice((1, 2, 7))
            name, twice = rng.choice(calls), rng.random() < 0.3

            def block(x, times=times):
                for _ in range(times):
                    x = model(x).tanh()
                return x

            waiting.append((x, block(x) if plain else CALLS[name](block, x), twice))
            with torch.no_grad():
                for _ in range(rng.choice((0, 0, 5))):
                    model(rng.choice(xs))
            while waiting and rng.random() < 0.5:
                x, y, twice = waiting.pop(rng.randrange(len(waiting)))
                for _ in range(1 + twice):
                    y.sin().sum().backward(retain_graph=twice)
                found.append(x.grad)
    return found


@EACH
@pytest.mark.parametrize("calls", [["newer"], ["older"], ["other"], list(CALLS)], ids=lambda calls: calls[0][:5])
@pytest.mark.parametrize("seed", range(3))
def test_random_programs_give_the_numbers_of_passes_without_checkpoints(name, calls, seed):
    calls = [each for each in calls if each != "newer in newer"]  # PyTorch does not tell the outer block
    plain, ours = made(name), made(name)
    expected, found = program(plain, seed, calls, plain=True), program(ours, seed, calls, plain=False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close([p.grad for p in ours.parameters()], [p.grad for p in plain.parameters()],
                               rtol=1e-4, atol=1e-4)  # fmt: skip
    torch.testing.assert_close(dict(ours.named_buffers()), dict(plain.named_buffers()), rtol=1e-4, atol=1e-5)


@EACH
@REENTRANT
def test_a_recurrent_network_calls_its_layer_at_each_of_many_steps(name, use_reentrant):
    plain = made(name)
    ours, xs = copy.deepcopy(plain), torch.randn(150, 5, 4)

    def run(model, xs):
        h = torch.zeros(5, 4)
        for x in xs:
            h = (model(h) + x).tanh()
        return h

    run(plain, xs).sum().backward()
    checkpoint(run, ours, xs.clone().requires_grad_(), use_reentrant=use_reentrant).sum().backward()
    torch.testing.assert_close(ours[0].weight.grad, plain[0].weight.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(plain.named_buffers()))


@EACH
@pytest.mark.parametrize("call", ["newer", "older", "other", "newer in newer", "older in newer"])
def test_the_passes_of_a_block_are_remembered_as_long_as_its_graph_lives(name, call):
    model = made(name)
    graphs = [CALLS[call](model, torch.randn(5, 4, requires_grad=True)) for _ in range(100)]
    memory = recomputation._MEMORIES[model[1]]
    assert len({each for block in memory.blocks.values() for each in block.passes}) == 100 and not memory.others
    for y in graphs[:50]:
        y.sum().backward()
    del y
    del graphs[:50]
    gc.collect()
    assert len({each for block in memory.blocks.values() for each in block.passes}) == 50
    graphs.clear()  # without a backward pass
    gc.collect()
    assert not memory.blocks and not memory.others and not memory.forgotten


@EACH
def test_training_without_checkpoints_is_not_remembered_and_passes_without_gradients_within_bounds(name):
    model = made(name)
    for _ in range(100):
        model(torch.randn(5, 4)).sum().backward()
    assert model[1] not in recomputation._MEMORIES
    with torch.no_grad():
        for _ in range(100):
            model(torch.randn(5, 4))
    memory = recomputation._MEMORIES[model[1]]
    assert len(memory.others) == recomputation._MOST_PASSES and not memory.blocks


@EACH
@pytest.mark.parametrize("later", [63, 64, 200])
def test_a_pass_of_an_unknown_block_is_computed_again_or_the_error_says_what_to_do(name, later):
    model, x = made(name), torch.randn(5, 4, requires_grad=True)
    twin = copy.deepcopy(model)
    (expected,) = torch.autograd.grad(twin(x).sin().sum(), x)
    with torch.no_grad():
        y = model(x)
        for _ in range(later):
            model(torch.randn(5, 4))

    def differentiate(g):  # a checkpoint that is no function of autograd
        with torch.enable_grad():
            return torch.autograd.grad(model(x), x, g)[0]

    y.requires_grad_().register_hook(differentiate)
    if later < recomputation._MOST_PASSES:
        y.sin().sum().backward()
        torch.testing.assert_close(y.grad, expected)
    else:
        kind, lost = type(model[1]).__name__, later - recomputation._MOST_PASSES + 1
        with pytest.raises(
            RuntimeError, match=f"{kind} gets a batch .* forgotten {lost} earlier ones; use torch.utils"
        ):
            y.sin().sum().backward()


@EACH
@REENTRANT
def test_a_batch_that_is_not_computed_exactly_alike_is_that_of_the_next_pass(name, use_reentrant):
    """Dropout draws anew; kernels on a GPU need not add in the same order."""
    norm, x = made(name)[1], torch.randn(5, 4, requires_grad=True)
    before = int(norm.num_batches_tracked)
    block = lambda x: norm(nn.functional.dropout(norm(nn.functional.dropout(x, 0.5)), 0.5))  # noqa: E731
    checkpoint(block, x, use_reentrant=use_reentrant, preserve_rng_state=False).sum().backward()
    assert norm.num_batches_tracked == before + 2


class Labelled(torch.Tensor):
    """A tensor class without operations of its own."""


@EACH
@pytest.mark.parametrize("call", ["newer", "older"])
def test_a_class_of_tensors_with_values_is_recognised(name, call):
    plain, recomputed = made(name)[1], made(name)[1]
    for step in range(3):
        torch.manual_seed(step)
        x = torch.randn(6, 4)
        first, second = x.clone().requires_grad_(), x.as_subclass(Labelled).requires_grad_()
        for y in (plain(first), CALLS[call](recomputed, second)):
            y.pow(3).sum().backward()
        torch.testing.assert_close(second.grad.as_subclass(torch.Tensor), first.grad)
    torch.testing.assert_close(recomputed.state_dict(), plain.state_dict())
    assert all(type(value) is torch.Tensor for value in recomputed.buffers())


@pytest.mark.parametrize("name", [name for name in CHANGING if name != "NoisyBatchNorm"])  # it cannot be stacked
@REENTRANT
def test_a_stack_in_a_checkpoint_raises_an_error(name, use_reentrant):
    """Under ``torch.func`` the batches have no values to recognise them by, so the numbers would be wrong."""
    stack = stacked.stack([nn.Sequential(LAYERS[name](), nn.PReLU()) for _ in range(2)])
    y = checkpoint(stack, torch.randn(2, 6, 4, requires_grad=True), use_reentrant=use_reentrant)
    with pytest.raises(RuntimeError, match=r"cannot recognise a batch .* under torch.func.* leave out the checkpoint"):
        y.sum().backward()


@EACH
@REENTRANT
def test_another_mode_in_the_second_pass_is_refused(name, use_reentrant):
    model, x = made(name), torch.randn(6, 4, requires_grad=True)
    y = checkpoint(model, x, use_reentrant=use_reentrant)
    model.eval()
    with pytest.raises(RuntimeError, match="must be in the mode of the first pass"):
        y.sum().backward()


@REENTRANT
def test_a_block_may_use_a_layer_in_both_modes(use_reentrant):
    def block(x):
        return model(x) * model.eval()(2 * x) * model.train()(3 * x)

    model, x = made("FullNorm batch"), torch.randn(6, 4, requires_grad=True)
    checkpoint(block, x, use_reentrant=use_reentrant).sum().backward()
    assert x.grad.isfinite().all()
