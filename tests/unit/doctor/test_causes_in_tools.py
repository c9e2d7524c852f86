"""What the rows about versions, files, quantisers and tiles say of PyTorch."""

import copy
import warnings

import pytest
import torch
from cases_in_tools import (
    adapted,
    blurred,
    convolutions,
    image_network,
    image_of_two_halves,
    kept,
    own_layer_norm,
    without_attribute,
)
from doctor_examples import batches, trained
from torch import nn
from torch.ao import quantization
from torch.nn import functional as F
from torch.nn.utils import fusion, parametrizations, weight_norm
from torch.optim.swa_utils import update_bn

from bnlib import models


def for_quantisation(gamma):
    """A convolution and BN, fused and prepared for quantisation-aware training, with fake quantisation off."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).train()
    model[1].weight.data[1] = gamma
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.fuse_modules_qat(model, [["0", "1", "2"]], inplace=True)
        model.qconfig = quantization.get_default_qat_qconfig("x86")
        quantization.prepare_qat(model, inplace=True)
    return model.apply(quantization.disable_fake_quant)


def test_a_gamma_of_zero_is_nan_in_quantisation_aware_training_and_a_small_one_is_not():
    x = torch.randn(2, 1, 8, 8)
    assert for_quantisation(0)(x).isnan().any()
    assert for_quantisation(0.001)(x).isfinite().all()
    slower = for_quantisation(0)
    slower[0]._enable_slow_path_for_better_numerical_stability = True
    assert slower(x).isfinite().all()


def test_the_old_weight_norm_cannot_be_copied_and_loads_into_the_new_one_only():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        old = weight_norm(nn.Linear(3, 3))
    new = parametrizations.weight_norm(nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly by the user"):
        copy.deepcopy(old)
    new.load_state_dict(old.state_dict())
    torch.testing.assert_close(copy.deepcopy(new).weight, old.weight)
    with pytest.raises(RuntimeError, match=r'Missing key.*"weight_g", "weight_v"'):
        old.load_state_dict(new.state_dict())


def test_a_layer_of_an_old_version_stops_and_its_state_loads():
    old, new = without_attribute(), nn.BatchNorm2d(3)
    old.running_mean.fill_(2)
    with pytest.raises(AttributeError, match="'BatchNorm2d' object has no attribute 'track_running_stats'"):
        old(torch.randn(4, 3, 2, 2))
    new.load_state_dict(old.state_dict(), strict=False)
    assert new.running_mean.eq(2).all()


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, one, other):
        return self.norm(one + other)


def test_update_bn_passes_the_first_element_and_leaves_the_momentum_none_after_an_error():
    model, x = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), torch.randn(4, 3)
    model(x)
    with pytest.raises(TypeError, match="must be Tensor, not dict"):
        update_bn([{"image": x}], model)
    assert model[1].momentum is None and not model[1].running_mean.any()
    with pytest.raises(AttributeError, match="'dict' object has no attribute 'to'"):
        update_bn([{"image": x}], model, device="cpu")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        update_bn([(x, x)], Sum())
    update_bn((batch["image"] for batch in [{"image": x}]), model)
    torch.testing.assert_close(model[1].running_mean, model[0](x).mean(0))


class FactorAndShift(nn.Module):
    """What ``torchvision.ops.FrozenBatchNorm2d`` computes: a factor and a shift that are buffers."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("factor", torch.rand(channels, 1, 1))
        self.register_buffer("shift", torch.rand(channels, 1, 1))

    def forward(self, x):
        return x * self.factor + self.shift


def test_a_norm_keeps_one_more_feature_map_also_if_it_is_frozen_and_not_if_it_is_folded():
    plain, with_norm = convolutions(), convolutions(nn.BatchNorm2d)
    assert kept(with_norm) > 1.7 * kept(plain)
    frozen = with_norm.eval()
    for layer in frozen:
        layer.requires_grad_(not isinstance(layer, nn.BatchNorm2d))
    assert kept(frozen) > 1.7 * kept(plain)
    pairs = zip(frozen[::3], frozen[1::3], strict=True)
    folded = [layer for pair in pairs for layer in (fusion.fuse_conv_bn_eval(*pair), nn.ReLU())]
    assert kept(nn.Sequential(*folded)) == kept(plain)
    assert kept(convolutions(FactorAndShift)) < 1.1 * kept(plain)


@pytest.mark.parametrize(("norm", "depends"), [(nn.GroupNorm(1, 4), True), (nn.BatchNorm2d(4), False)])
def test_norms_that_take_statistics_of_each_input_see_its_padding_and_its_tile(norm, depends):
    image, network = image_of_two_halves(), image_network(norm).eval()
    assert torch.allclose(network(image)[..., :4], network(image[..., :16])[..., :4], atol=1e-3) != depends
    values = torch.randn(2, 4, 1, 10)
    padded = norm(F.pad(values, (0, 9)))[..., :10]
    assert torch.allclose(padded, norm(values), atol=1e-3) != depends
    layer = nn.LayerNorm(4)
    assert torch.allclose(layer(F.pad(values, (0, 9)).movedim(1, -1))[:, :, :10], layer(values.movedim(1, -1)))


def test_one_group_per_value_is_the_error_of_one_value_per_channel():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        nn.GroupNorm(32, 32)(torch.randn(1, 32, 1, 1))


def test_more_passes_of_entropy_minimisation_raise_the_loss():
    x, y = (torch.cat(each) for each in zip(*blurred(), strict=True))
    once, often = (F.cross_entropy(adapted(passes)(x), y).item() for passes in (1, 30))
    assert often > 1.2 * once


def test_in_train_mode_the_gradient_at_one_image_depends_on_the_others():
    ((x, _), *_) = batches()

    def saliency(training, size):
        images = x[:size].clone().requires_grad_()
        trained("mlp").train(training)(images)[:, 3].sum().backward()
        return images.grad[:2]

    assert torch.allclose(saliency(False, 2), saliency(False, 32), atol=1e-6)
    assert not torch.allclose(saliency(True, 2), saliency(True, 32), atol=1e-2)


def test_weight_decay_without_a_loss_pulls_gamma_to_zero():
    model = models.mlp((64, 32, 10), nn.BatchNorm1d)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1)
    for _ in range(100):
        optimiser.zero_grad()
        (0 * sum(p.sum() for p in model.parameters())).backward()
        optimiser.step()
    assert model[2].weight.abs().max() < 1e-3


def test_a_common_scale_of_gamma_and_beta_matters_behind_the_last_norm_only():
    model, x = trained("mlp").train(), batches()[0][0]
    before = model(x)
    for place, changes in ((2, False), (5, True)):
        for value in model[place].parameters():
            value.data *= 0.5
        assert torch.allclose(model(x), before, atol=1e-2) != changes


def test_a_rounding_before_the_multiplication_by_the_weight_differs_from_one_after_it():
    x, weight = torch.randn(100, 64).bfloat16(), (1 + 0.3 * torch.randn(64)).bfloat16()
    normal = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    before, after = normal.bfloat16() * weight, (normal * weight.float()).bfloat16()
    assert not torch.equal(before, after) and torch.allclose(before, after, 0.02, 0.02)
    assert torch.equal(after, F.rms_norm(x, (64,), weight, 1e-6))


def test_a_row_of_zeros_in_float16_is_nan_if_eps_is_zero_there():
    x = torch.zeros(2, 4).half()
    assert (x / (x.var(-1, keepdim=True) + 1e-12).sqrt()).isnan().all()
    assert nn.LayerNorm(4, eps=1e-12).half()(x).isfinite().all()


def test_instance_norm_on_vectors_or_features_last_warns_and_normalises_the_features():
    for shape in ((10, 3), (2, 8, 3)):
        with pytest.warns(UserWarning, match=r"input's size at dim=\d does not match num_features"):
            assert nn.InstanceNorm1d(3)(torch.randn(shape)).mean(-1).abs().max() < 1e-5
    with pytest.raises(ValueError, match="expected input's size at dim=1 to match num_features"):
        nn.InstanceNorm1d(3, affine=True)(torch.randn(2, 8, 3))


def test_the_gradient_of_a_root_at_zero_is_nan_and_not_with_eps_under_it():
    for inside in (False, True):
        found = own_layer_norm(inside)
        outputs = found["layer"](found["row"])
        (gradient,) = torch.autograd.grad(outputs.sum(), found["row"])
        assert outputs.isfinite().all() and gradient.isnan().any() != inside
