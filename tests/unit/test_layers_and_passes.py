"""Every layer when torch runs its passes in another order or on other tensors: the numbers are those of plain steps."""

import contextlib
import copy

import pytest
import torch
from layers import EACH, EACH_FULL_NORM, LAYERS
from torch import nn
from torch.utils.checkpoint import checkpoint

import bnlib

OVER_BATCHES = ["MovingAverageBatchNorm", "OnlineNorm", "CrossIterationBatchNorm"]
EACH_WITH_BACKWARD_STATE = pytest.mark.parametrize(
    "name", [*(name for name in LAYERS if "FullNorm" in name), "MovingAverageBatchNorm", "OnlineNorm"]
)


def batch(seed, shape=(6, 4)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def trained(name, steps=2, shape=(6, 4)):
    layer = LAYERS[name]() if name in LAYERS else bnlib.BatchRenorm(4, momentum=0.3)
    for k in range(steps):
        layer(batch(k, shape)).square().sum().backward()
    layer.zero_grad()
    return layer


def same(ours, theirs, **tolerances):
    torch.testing.assert_close(ours, theirs, **(tolerances or {"rtol": 0, "atol": 0}))


@EACH
def test_functional_call_uses_and_changes_the_given_tensors_only(name):
    given, layer = trained(name), LAYERS[name]()
    state = {key: value.detach().clone() for key, value in (*given.named_parameters(), *given.named_buffers())}
    before, results = copy.deepcopy(layer.state_dict()), []
    for call in (lambda x: torch.func.functional_call(layer, state, (x,)), given):
        x = batch(9).requires_grad_()
        y = call(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    same(*results)
    same({key: state[key] for key, _ in given.named_buffers()}, dict(given.named_buffers()))
    same(layer.state_dict(), before)


@EACH
def test_a_partial_state_dict_changes_only_what_it_names(name):
    layer = trained(name)
    before = copy.deepcopy(layer.state_dict())
    found = nn.Sequential(layer, nn.Linear(4, 1)).load_state_dict({"1.bias": torch.ones(1)}, strict=False)
    same(layer.state_dict(), before)
    assert {f"0.{key}" for key in before} - set(found.missing_keys) <= {"0.num_batches_tracked"} | {
        f"0.domains.{domain}.num_batches_tracked" for domain in range(2)
    }  # which torch fills in, too
    for missing in before:
        if not missing.endswith("num_batches_tracked"):
            with pytest.raises(RuntimeError, match=f'Missing key.*"{missing}"'):
                layer.load_state_dict({key: value for key, value in before.items() if key != missing})


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", ["BatchRenorm", "FullNorm running", "BatchNorm"])
def test_a_batch_norm_checkpoint_loads_without_its_number_of_batches_and_into_a_layer_without_memory(name, assign):
    theirs = nn.BatchNorm1d(4)
    theirs(batch(0))
    old = {key: value for key, value in theirs.state_dict().items() if key != "num_batches_tracked"}
    for device in ("meta", "cpu") if assign else ("cpu",):
        layer = LAYERS[name](device=device)
        layer.load_state_dict(copy.deepcopy(old), assign=assign)
        assert layer.num_batches_tracked == 0
        same(layer.running_var, theirs.running_var)
        layer(batch(1)).sum().backward()


def test_a_new_mean_does_not_keep_the_rounding_error_of_the_old_one():
    layer = bnlib.FullNorm(4)
    layer.running_mean_rest.fill_(0.1)
    missing = layer.load_state_dict({"running_mean": torch.zeros(4)}, strict=False).missing_keys
    assert "running_mean_rest" in missing and (layer.running_mean_rest == 0).all()


@EACH_WITH_BACKWARD_STATE
def test_the_order_of_backward_passes_does_not_matter(name):
    """One forward pass with two losses in either order, also for the steps that follow."""
    layers, results = [trained(name) for _ in range(2)], [[], []]
    for step in range(3):
        for number, layer in enumerate(layers):
            x = batch(10 + step).requires_grad_()
            y = layer(x)
            losses = [y.pow(3).mean(), y.exp().mean()]
            order = losses[::-1] if number else losses
            grads = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in order]
            results[number] += grads[::-1] if number else grads
            same(torch.autograd.grad(losses[0], x, retain_graph=True)[0], grads[number])
    same(*results, rtol=1e-4, atol=1e-6)
    same(*[layer.state_dict() for layer in layers], rtol=1e-4, atol=1e-6)


@EACH_WITH_BACKWARD_STATE
def test_two_batches_before_either_backward_pass_give_gradients_of_any_order(name):
    """The real and the generated batch of a GAN, or the two inputs of a siamese network."""
    results = []
    for order in ((0, 1), (1, 0)):
        layer, xs = trained(name), [batch(20 + k).requires_grad_() for k in range(2)]
        losses = [layer(x).pow(3).mean() for x in xs]
        grads = {k: torch.autograd.grad(losses[k], xs[k])[0] for k in order}
        results.append([grads[0], grads[1]])
    same(*results)


@EACH
@pytest.mark.parametrize("scale", [1, 1e-3])  # the second one has variances below eps
def test_settings_that_change_after_the_forward_pass_do_not_change_its_gradients(name, scale):
    others = {"oracle": "batch", "eps": 0.5, "alpha": 0.9, "momentum": 0.9, "r_max": 9.0, "d_max": 9.0, "window": 5}
    others |= {"alpha_forward": 0.1, "alpha_backward": 0.1, "virtual_batch_size": 2, "burn_in": 99, "warmup": 99}
    results = []
    for change in (False, True):
        torch.manual_seed(0)
        layer, x = trained(name), (batch(20) * scale).requires_grad_()
        y = layer(x)
        known = [each for each in others if change and isinstance(vars(layer).get(each), (int, float, str))]
        for setting in known:
            setattr(layer, setting, others[setting])
        results.append(torch.autograd.grad(y.pow(3).sum(), (x, *layer.parameters()), allow_unused=True))
    same(*results)


class Counted(nn.Module):
    calls = 0

    def forward(self, values):
        Counted.calls += 1
        return values * torch.rand_like(values)


@EACH
@pytest.mark.parametrize("training", [True, False])
def test_a_parametrised_weight_is_computed_once_in_a_step(name, training):
    for shape in ((6, 4), (6, 4, 3, 3))[: 1 if name in ("CrossIterationBatchNorm", "CosineLinear") else 2]:
        layer = trained(name).train(training)
        layer = layer.domains[1] if name == "DomainBatchNorm" else layer
        for each in [each for each, _ in layer.named_parameters(recurse=False)]:
            nn.utils.parametrize.register_parametrization(layer, each, Counted(), unsafe=True)
        Counted.calls = 0
        layer(batch(0, shape)).sum().backward()
        assert Counted.calls == len(layer.parametrizations)


@EACH_FULL_NORM
def test_vectorised_gradients_are_those_one_by_one_and_move_no_estimate(name):
    layer, x, gs = trained(name), batch(30).requires_grad_(), torch.randn(3, 6, 4)
    buffers = dict(layer.named_buffers())
    y = layer(x)
    before = copy.deepcopy(layer.state_dict())
    together = torch.autograd.grad(y, (x, layer.weight), gs, is_grads_batched=True, retain_graph=True)
    same(layer.state_dict(), before)

    def output(x):
        return torch.func.functional_call(layer, {key: value.clone() for key, value in buffers.items()}, (x,))

    alone = [torch.autograd.grad(y, (x, layer.weight), g, retain_graph=True) for g in gs]
    same(together, tuple(map(torch.stack, zip(*alone, strict=True))), rtol=1e-4, atol=1e-5)
    if name != "FullNorm leave_one_out":
        assert torch.func.jacrev(output)(x.detach()).shape == (6, 4, 6, 4)


CHANGING = [
    "BatchRenorm", "NoisyBatchNorm", "FullNorm running", "FullNorm batch", "FullNorm leave_one_out", *OVER_BATCHES,
]  # fmt: skip


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpointed_pass_is_computed_again_and_counted_once(name, use_reentrant):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 4), LAYERS[name](), nn.ReLU(), nn.Linear(4, 4), LAYERS[name](), nn.Linear(4, 1))
    ours = copy.deepcopy(plain)
    for k in range(3):
        xs = [batch(40 + 2 * k), batch(41 + 2 * k), batch(40 + 2 * k)]  # two passes over an equal batch
        total = sum(plain(x.requires_grad_()).square().sum() for x in xs)
        again = sum(checkpoint(ours, x, use_reentrant=use_reentrant).square().sum() for x in xs)
        for model, loss in ((plain, total), (ours, again)):
            model.zero_grad()
            loss.backward()
        same([p.grad for p in ours.parameters()], [p.grad for p in plain.parameters()], rtol=1e-5, atol=1e-6)
    exact = {} if name == "NoisyBatchNorm" else {"rtol": 1e-5, "atol": 1e-6}
    same(dict(ours.named_buffers()), dict(plain.named_buffers()), **exact)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("name", ["BatchRenorm", "FullNorm running", "NoisyBatchNorm", *OVER_BATCHES])
def test_checkpointed_passes_over_equal_batches_are_told_apart_in_any_order(name, use_reentrant):
    x = batch(3)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        plain = trained(name)
        ours = copy.deepcopy(plain)
        for layer, call in ((plain, lambda f, *xs: f(*xs)), (ours, checkpoint)):
            options = {"use_reentrant": use_reentrant} if call is checkpoint else {}
            inputs = [x.clone().requires_grad_(), x.flip(0).requires_grad_(), x.clone().requires_grad_()]
            block = lambda z, layer=layer: (layer(layer(z).tanh()) * layer(z)).sum()  # noqa: E731
            losses = [call(block, each, **options) * (k + 1) for k, each in enumerate(inputs)]
            for k in order:
                losses[k].backward()
            layer.inputs = [each.grad for each in inputs]
        same(ours.inputs, plain.inputs, rtol=1e-4, atol=1e-5)
        same(ours.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["BatchRenorm", "FullNorm running"])
def test_equal_batches_that_cannot_be_told_apart_raise_an_error(name):
    """A checkpoint by a hook, which this layer cannot see."""

    def again(x, layer):
        x = x.detach().requires_grad_()
        with torch.no_grad():
            y = layer(x)

        def differentiate(g):
            with torch.enable_grad():
                x.grad = torch.autograd.grad(layer(x), x, g)[0]

        y.requires_grad_().register_hook(differentiate)
        return x, y

    layer, twin, x = trained(name), trained(name), batch(3).requires_grad_()
    (copied, y), expected = again(x, layer), torch.autograd.grad(twin(x).square().sum(), x)[0]
    y.square().sum().backward()
    same(copied.grad, expected)
    (_, first), _ = again(x, layer), again(x, layer)
    with pytest.raises(RuntimeError, match=r"has seen equal batches several times, .* use torch.utils.checkpoint"):
        first.sum().backward()


# torch sets off its own DeprecationWarnings when it compiles.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["BatchRenorm", "FullNorm running"])
def test_a_compiled_layer_is_not_computed_again_unnoticed(name):
    torch._dynamo.reset()
    compiled = torch.compile(trained(name), backend="aot_eager")
    y = checkpoint(lambda x: compiled(x).tanh(), batch(4).requires_grad_(), use_reentrant=False)
    with pytest.raises(RuntimeError, match="must not be inside"):
        y.sum().backward()


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3)])
@pytest.mark.parametrize("name", [*CHANGING, "BatchRenorm without corrections"])
def test_a_program_may_restore_the_buffers_before_the_second_pass_itself(name, shape):
    """With or without putting the newer ones back; the recipe in chapter 11 does the first."""

    @contextlib.contextmanager
    def restored(layer, before, put_back):
        after = copy.deepcopy(layer.state_dict())
        layer.load_state_dict(before)
        try:
            yield
        finally:
            layer.load_state_dict(after if put_back else layer.state_dict())

    shape = shape[:2] if name == "CrossIterationBatchNorm" else shape  # it contains a linear layer
    plain, x = trained(name, shape=shape), batch(60, shape).requires_grad_()
    twins = [copy.deepcopy(plain) for _ in range(2)]
    (expected,) = torch.autograd.grad(plain(x).pow(3).sum(), x)
    for layer, put_back in zip(twins, (True, False), strict=True):
        passes = contextlib.nullcontext(), restored(layer, copy.deepcopy(layer.state_dict()), put_back)
        y = checkpoint(layer, x, use_reentrant=False, context_fn=lambda passes=passes: passes)
        same(torch.autograd.grad(y.pow(3).sum(), x)[0], expected, rtol=1e-5, atol=1e-6)
        same(layer.state_dict(), plain.state_dict())


def test_noise_behind_a_checkpoint_is_that_of_the_first_pass():
    plain, ours = bnlib.ActivationNoise(seed=1), bnlib.ActivationNoise(seed=1)
    x, twin = batch(0).requires_grad_(), batch(0).requires_grad_()
    plain(x).square().sum().backward()
    checkpoint(ours, twin, use_reentrant=False).square().sum().backward()
    same(x.grad, twin.grad)
    assert ours.num_batches_tracked == 1


@EACH
def test_steps_write_into_the_buffers_that_others_hold(name):
    layer = LAYERS[name]()
    held = dict(layer.named_buffers())
    for shape in ((6, 4), (1, 4), (6, 4)) if "leave_one_out" not in name else ((6, 4), (5, 4)):
        layer(batch(0, shape)).sum().backward()
    assert all(value is held[key] for key, value in layer.named_buffers())


@EACH_WITH_BACKWARD_STATE
@pytest.mark.parametrize("offset", [0.0, 1e4])  # the fast and the general step of FullNorm
def test_a_layer_may_change_its_type_between_forward_and_backward(name, offset):
    layer, twin = trained(name), trained(name)
    results = []
    for each in (layer, twin):
        x = (batch(50) + offset).requires_grad_()
        loss = each(x).pow(3).mean()
        if each is layer:
            layer.double()
        results.append(torch.autograd.grad(loss, x)[0])
    same(*results)
    for key, value in layer.named_buffers():
        same(value.float(), twin.get_buffer(key).float(), rtol=1e-6, atol=1e-6)
    assert layer(batch(51).double()).dtype == torch.float64
