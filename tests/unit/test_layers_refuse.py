"""Wrong arguments, inputs and uses of layers: each message names the argument, what it was, and what it must be."""

import itertools
import warnings
from fractions import Fraction

import pytest
import torch
import torch.autograd.forward_ad
from layers import EACH, EACH_FULL_NORM, LAYERS
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import bnlib

NAN = float("nan")
TYPES = torch.float16, torch.bfloat16, torch.float32, torch.float64
ARGUMENTS = [
    (lambda: bnlib.BatchNorm(0), "num_features must be an integer, at least 1, got 0"),
    (lambda: bnlib.FullNorm(0), "num_features must be an integer, at least 1, got 0"),
    (lambda: bnlib.BatchRenorm(2.0), "num_features must be an integer, at least 1, got 2.0"),
    (lambda: bnlib.RMSNorm("4"), "num_features must be an integer, at least 1, got '4'"),
    (lambda: bnlib.DynamicTanh(True), "num_features must be an integer, at least 1, got True"),
    (lambda: bnlib.FilterResponseNorm(-1), "num_features must be an integer, at least 1, got -1"),
    (lambda: bnlib.EvoNormS0(1, 0), "num_channels must be an integer, at least 1, got 0"),
    (lambda: bnlib.EvoNormS0("1", 4), "num_groups must be an integer, at least 1, got '1'"),
    (lambda: bnlib.EvoNormS0(True, 4), "num_groups must be an integer, at least 1, got True"),
    (lambda: bnlib.CosineLinear(4, 0), "out_features must be an integer, at least 1, got 0"),
    (lambda: bnlib.GhostBatchNorm(4, 2.5), "virtual_batch_size must be an integer, at least 1, got 2.5"),
    (lambda: bnlib.MovingAverageBatchNorm(4, window=1.5), "window must be an integer, at least 1, got 1.5"),
    (lambda: bnlib.OnlineNorm(4, alpha_backward="x"), "alpha_backward must lie between 0 and 1, got 'x'"),
    (lambda: bnlib.CrossIterationBatchNorm(nn.ReLU()), "layer must be a Linear or Conv1d to Conv3d layer, got ReLU"),
    (lambda: bnlib.DomainBatchNorm(4, "2"), "num_domains must be an integer, at least 1, got '2'"),
    (lambda: bnlib.DomainBatchNorm(4, 2, shared_affine=1), "shared_affine must be True or False, got 1"),
    (lambda: bnlib.BatchNorm(4, eps="a"), "eps must be a finite number, got 'a'"),
    (lambda: bnlib.BatchNorm(4, eps=NAN), "eps must be a finite number, got nan"),
    (lambda: bnlib.EvoNormS0(1, 4, eps=Fraction(1, 9)), r"eps must be a finite number, got Fraction\(1, 9\)"),
    (lambda: bnlib.FullNorm(4, alpha=Fraction(1, 9)), r"alpha must be a number .* got Fraction\(1, 9\)"),
    (lambda: bnlib.BatchRenorm(4, r_max=Fraction(9, 4)), r"r_max must be a number .* got Fraction\(9, 4\)"),
    (lambda: bnlib.BatchRenorm(4, momentum=Fraction(1, 9)), r"momentum must lie between 0 and 1, got Fraction\(1, 9\)"),
    (lambda: bnlib.SyncBatchNorm(4, momentum="0.1"), "momentum must be a finite number, got '0.1'"),
    (lambda: bnlib.BatchRenorm(4, momentum="0.1"), "momentum must lie between 0 and 1, got '0.1'"),
    (lambda: bnlib.BatchRenorm(4, r_max="3"), "r_max must be a number or a schedule .* got '3'"),
    (lambda: bnlib.BatchRenorm(4, r_max=torch.ones(2)), r"r_max must be a number .* got a Tensor of shape \(2,\)"),
    (lambda: bnlib.BatchRenorm(4, d_max=torch.tensor(1j)), "d_max must be a number or a schedule .* got tensor"),
    (lambda: bnlib.BatchRenorm(4, r_max=lambda step: "3"), "r_max must be a function of the step, .* the text '3'"),
    (lambda: bnlib.BatchRenorm(4, d_max=None), "d_max must be a number or a schedule .* got None"),
    (lambda: bnlib.FullNorm(4, 1e-5, 0.1, "running", True, "cuda"), "process_group must be .* 'cuda'; a device must"),
    (lambda: bnlib.SyncBatchNorm(4, process_group=[0, 1]), r"process_group must be a group .* got \[0, 1\]"),
    (lambda: bnlib.RMSNorm(4, eps=-1.0), "eps must be at least 0, or None, got -1.0"),
    (lambda: bnlib.BatchNorm(4, eps=10**400), "eps must be a finite number, got"),
    (lambda: bnlib.FullNorm(4, eps=NAN), "eps must be a finite number, got nan"),
    (lambda: bnlib.FullNorm(4, alpha="x"), r"alpha must be a number in \(0, 1\] or a schedule .* got 'x'"),
    (lambda: bnlib.FullNorm(4, alpha=NAN), r"alpha must lie in \(0, 1\], got nan"),
    (lambda: bnlib.FullNorm(4, alpha=-0.1), r"alpha must lie in \(0, 1\], got -0.1"),
    (lambda: bnlib.FullNorm(4, oracle="leave-one-out"), "got 'leave-one-out'; did you mean 'leave_one_out'?"),
    (lambda: bnlib.FullNorm(4, oracle=3), "oracle must be one of 'batch', .*, got 3"),
    (lambda: bnlib.DynamicTanh(4, alpha="x"), "alpha must be a finite number, got 'x'"),
    (lambda: bnlib.ActivationNoise(shift="x"), "shift must be a finite number, got 'x'"),
    (lambda: bnlib.NoisyBatchNorm(4, seed=0.5), "seed must be an integer, at least 0, got 0.5"),
    (lambda: bnlib.BatchNorm(4, affine="no"), "affine must be True or False, got 'no'"),
    (lambda: bnlib.FullNorm(4, bias=None), "bias must be True or False, got None"),
    (lambda: bnlib.FullNorm(4, dtype="float32"), "dtype must be a torch.dtype such as torch.float32, got 'float32'"),
    (lambda: bnlib.RMSNorm(4, dtype=torch.int8), "dtype must be a type of real numbers .* got torch.int8"),
    (lambda: bnlib.CosineLinear(4, 4, device="gpu"), "device must be a device such as 'cpu' or 'cuda', got 'gpu'"),
    (lambda: bnlib.weight_standardise(nn.Embedding(3, 4)), "module must be a linear or convolutional layer, got Emb"),
    (lambda: bnlib.weight_standardise(nn.Linear(3, 4), name="wieght"), "got 'wieght'; did you mean 'weight'?"),
    (lambda: bnlib.weight_standardise(nn.Linear(3, 4), name=3), "name must be a parameter of module, got 3"),
    (lambda: bnlib.weight_standardise(nn.LazyLinear(4)), "module must have weights, .* which is lazy; call it first"),
    (lambda: bnlib.norm.weight_centralise(nn.LazyLinear(4)), "module must have weights, .* which is lazy; call it fi"),
    (lambda: bnlib.weight_standardise(nn.Linear(3, 4), eps="a"), "eps must be a finite number, above 0, got 'a'"),
    (lambda: bnlib.norm.WeightStandardisation(eps=0), "eps must be a finite number, above 0, got 0"),
    (lambda: setattr(LAYERS["DomainBatchNorm"](), "domain", 1.0), "domain must be an integer from 0 to 1, got 1.0"),
]


def nested(layout):
    with warnings.catch_warnings(action="ignore"):  # nested tensors are a prototype
        return torch.nested.nested_tensor([torch.ones(4), torch.ones(4)], layout=layout)


@pytest.mark.parametrize(("make", "message"), ARGUMENTS)
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@EACH
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("input", "message"),
    [
        ([[1.0] * 4] * 6, "input must be a tensor, got a list of 6"),
        (None, "input must be a tensor, got None"),
        (torch.ones(6, 4, dtype=torch.long), r"input must hold floating-point numbers, got torch.int64; .*float\(\)"),
        (torch.ones(6, 4, dtype=torch.bool), "input must hold floating-point numbers, got torch.bool"),
        (torch.ones(6, 4, dtype=torch.complex64), "input must hold floating-point numbers, got torch.complex64"),
        (torch.ones(6, 4).to(torch.float8_e5m2), r"input must hold .* 16 bits, got torch.float8_e5m2; .*float\(\)"),
        (torch.ones(6, 4).to_sparse(), r"must be a dense tensor, got one of layout torch.sparse_coo; .*to_dense\(\)"),
        (nested(torch.strided), "input must be a dense tensor, got one of layout torch.strided; .*to_padded_tensor"),
        (nested(torch.jagged), "input must be a dense tensor, got one of layout torch.jagged; .*to_padded_tensor"),
        (torch.ones(6, 3), "input must have (num_features|in_features)=4 .*3"),
        (torch.tensor(1.0), r"input must have .*\(\)"),
    ],
)
def test_a_wrong_input_is_named(name, training, input, message):
    with pytest.raises((TypeError, ValueError), match=message):
        LAYERS[name]().train(training)(input)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # of torch's RMSNorm, which converts the input
@EACH
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kinds", list(itertools.permutations(TYPES, 2)))
def test_an_input_of_another_type_is_normalised_or_named(name, kinds, training):
    own, given = kinds
    layer, only_vectors = LAYERS[name](dtype=own).train(training), name in ("CrossIterationBatchNorm", "CosineLinear")
    try:
        for shape in ((6, 4), (6, 4, 3, 2))[: 1 if only_vectors else 2]:
            output = layer(torch.randn(shape).to(given))
            assert output.isfinite().all() and output.dtype is given
    except TypeError as error:
        assert f"input must have the dtype of the layer, {own}, got {given}" in str(error)


@EACH
def test_tensors_without_values_pass_through(name):
    assert LAYERS[name](device="meta")(torch.ones(6, 4, device="meta")).shape == (6, 4)
    with FakeTensorMode():
        x = torch.ones(6, 4, requires_grad=True)
        LAYERS[name]()(x).sum().backward()
        assert x.grad.shape == (6, 4)


@EACH
def test_a_layer_made_in_inference_mode_can_be_trained(name):
    with torch.inference_mode():
        layer = LAYERS[name]()
        layer(torch.randn(6, 4))
    x = torch.randn(6, 4, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad.isfinite().all() and all(value.grad is not None for value in layer.parameters())


def test_a_convolution_made_in_inference_mode_is_named():
    with torch.inference_mode():
        layer = bnlib.CrossIterationBatchNorm(nn.Linear(4, 4))
        layer(torch.randn(6, 4))
    with pytest.raises(RuntimeError, match=r"layer must have weights .* made in torch.inference_mode; make the layer"):
        layer(torch.randn(6, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")  # of torch.jit
@EACH_FULL_NORM
def test_what_full_norm_cannot_do_in_train_mode_says_what_to_do_instead(name):
    layer, x = LAYERS[name](), torch.randn(6, 4)

    def output(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,)).sum()

    parameters = {key: value.detach() for key, value in layer.named_parameters()}
    with pytest.raises(RuntimeError, match=r"cannot be traced by torch.jit.trace; call layer.eval\(\) first"):
        torch.jit.trace(layer, x)
    with pytest.raises(RuntimeError, match=r"no forward-mode derivative: .* Use eval mode"):
        torch.func.jvp(layer, (x,), (x,))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="no forward-mode derivative"):
        layer(torch.autograd.forward_ad.make_dual(x, x))
    with pytest.raises(RuntimeError, match=r"per-sample gradients .* call layer.eval\(\) first"):
        torch.func.vmap(torch.func.grad(output), in_dims=(None, 0))(parameters, x[:, None].expand(6, 2, 4))
    gradients = torch.func.vmap(torch.func.grad(output), in_dims=(None, 0))
    layer.eval()
    assert gradients(parameters, x[:, None])["weight"].shape == (6, 4)
    assert torch.func.jacrev(layer)(x).shape == (6, 4, 6, 4)
    torch.testing.assert_close(torch.jit.trace(layer, x)(x), layer(x))


@pytest.mark.parametrize("name", ["BatchNorm", "GhostBatchNorm", "SyncBatchNorm", "DomainBatchNorm", "NoisyBatchNorm",
                                  "BatchRenorm", "FullNorm running", "MovingAverageBatchNorm", "OnlineNorm",
                                  "CrossIterationBatchNorm"])  # fmt: skip
def test_layers_that_update_buffers_say_what_torch_func_can_do_instead(name):
    layer, x, func = LAYERS[name](), torch.randn(6, 4), torch.func
    parameters = {key: value.detach() for key, value in layer.named_parameters()}

    def output(parameters, x):
        return func.functional_call(layer, parameters, (x,)).sum()

    calls = (
        lambda: func.vmap(func.grad(output), in_dims=(None, 0))(parameters, x[:, None].expand(6, 2, 4)),
        lambda: func.vmap(func.grad(output), in_dims=(None, 0))(parameters, x[:, None]),
        lambda: func.jacrev(layer)(x),
        lambda: func.vmap(layer, randomness="different")(x.expand(3, 6, 4)),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match=rf"{type(layer).__name__ if 'Domain' not in name else 'BatchNorm'} in "
                           r"train mode updates .*call layer.eval\(\) first.*stack_module_state"):  # fmt: skip
            call()
    layer.eval()
    for call in calls:
        call()


def test_noise_says_what_torch_func_can_do_instead():
    layer, x = bnlib.ActivationNoise(seed=1), torch.randn(6, 4)
    with pytest.raises(RuntimeError, match=r"ActivationNoise in train mode updates num_batches_tracked"):
        torch.func.jacrev(layer)(x)
    layers = [bnlib.NoisyBatchNorm(4, seed=1) for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(layers)
    with pytest.raises(RuntimeError, match="layers that draw noise cannot be members of such an ensemble"):
        torch.func.vmap(
            lambda p, b, x: torch.func.functional_call(layers[0], (p, b), (x,)), randomness="different"
        )(parameters, buffers, x.expand(3, 6, 4))  # fmt: skip


def test_a_schedule_that_leaves_its_range_is_named_with_the_step():
    layer = bnlib.FullNorm(4, alpha=lambda step: 0.5 + 0.3 * step)
    with pytest.raises(ValueError, match=r"alpha must lie in \(0, 1\] at every step, got 1.1 at step 2"):
        for _ in range(4):
            layer(torch.randn(6, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")  # of torch.jit
@pytest.mark.parametrize("name", ["GhostBatchNorm", "NoisyBatchNorm", "BatchRenorm", "ActivationNoise"])
def test_a_program_that_would_repeat_one_step_is_refused(name):
    layer = bnlib.ActivationNoise(seed=1) if name == "ActivationNoise" else LAYERS[name]()
    with pytest.raises(RuntimeError, match=rf"{name} in train mode cannot be traced by torch.jit.trace; call layer.e"):
        torch.jit.trace(layer, torch.randn(6, 4))
    x = torch.randn(5, 4)
    torch.testing.assert_close(torch.jit.trace(layer.eval(), torch.randn(6, 4))(x), layer(x))


@pytest.mark.parametrize("layer", [bnlib.NoisyBatchNorm(4, seed=1), bnlib.ActivationNoise(seed=1)], ids=["BN", "noise"])
def test_noise_cannot_be_exported(layer):
    batch = {0: torch.export.Dim("batch")}
    with pytest.raises(RuntimeError, match=r"in train mode cannot be exported by torch.export; call layer.eval\(\) f"):
        torch.export.export(layer, (torch.randn(6, 4),), dynamic_shapes=(batch,))
    x = torch.randn(5, 4)
    program = torch.export.export(layer.eval(), (torch.randn(6, 4),), dynamic_shapes=(batch,))
    torch.testing.assert_close(program.module()(x), layer(x))
