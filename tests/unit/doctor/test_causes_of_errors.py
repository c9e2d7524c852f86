"""What the rows about error messages say of PyTorch."""

import copy

import pytest
import torch
from doctor_examples import trained
from more_examples import without_counters
from torch import func, nn
from torch.ao import quantization


def test_float16_overflows_in_front_of_bn_and_bfloat16_does_not():
    x = 1e6 * torch.rand(8, 1, 8, 8)
    for number_format, finite in ((torch.float16, False), (torch.bfloat16, True)):
        model = trained("mlp").train()
        assert torch.autocast("cpu", number_format)(model)(x).isfinite().all() == finite
        assert model[2].running_mean.dtype == torch.float32 and model[2].running_mean.isfinite().all() == finite
    one_of_many = torch.randn(8, 3)
    one_of_many[2, 1] = torch.inf
    assert nn.BatchNorm1d(3)(one_of_many).isnan().sum(0).tolist() == [0, 8, 0]


def test_bn_in_float32_takes_half_precision_and_not_the_other_way_round():
    assert nn.BatchNorm1d(3)(torch.randn(4, 3).half()).dtype == torch.float16
    with pytest.raises(RuntimeError, match="expect parameter to have scalar type of Float"):
        nn.BatchNorm1d(3).half()(torch.randn(4, 3))
    with pytest.raises(RuntimeError, match=r"Input type .* and bias type .* should be the same"):
        nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3)).half()(torch.randn(4, 2, 5))


def test_a_counter_that_one_side_lacks_is_an_error_and_harmless():
    model, state = trained("mlp"), trained("mlp").state_dict()
    old = type(state)(without_counters(state))
    old._metadata = state._metadata
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"2.num_batches_tracked\""):
        model.load_state_dict(old)
    missing, unexpected = model.load_state_dict(old, strict=False)
    assert missing and all(key.endswith("num_batches_tracked") for key in missing) and not unexpected


def test_a_norm_at_the_output_gives_batches_of_large_and_of_small_values_the_same_mean_and_variance():
    layer = nn.BatchNorm1d(1, eps=1e-9)
    small, large = torch.randn(64, 1), 100 + 5 * torch.randn(64, 1)
    for values in (small, large):
        assert abs(layer(values).mean()) < 1e-5 and abs(layer(values).var(correction=0) - 1) < 1e-4


@pytest.mark.parametrize("training", [True, False])
def test_writing_into_the_running_averages_between_forward_and_backward_is_the_error_of_two_passes(training):
    layer = nn.BatchNorm1d(3).train(training)
    loss = layer(torch.randn(4, 3, requires_grad=True)).square().sum()
    with torch.no_grad():
        layer.running_mean.copy_(layer.running_mean.clone())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm2d(3), (2, 3, 4)),
        (nn.BatchNorm2d(3), (2, 3)),
        (nn.BatchNorm1d(3), (2, 3, 4, 4)),
        (nn.BatchNorm3d(3), (2, 3, 4, 4)),
    ],
)
def test_a_norm_for_another_number_of_dimensions_stops_and_sync_batch_norm_takes_any(layer, shape):
    with pytest.raises(ValueError, match=rf"expected .*D input \(got {len(shape)}D input\)"):
        layer(torch.randn(shape))
    assert nn.SyncBatchNorm.convert_sync_batchnorm(layer).eval()(torch.randn(shape)).shape == shape


def test_inside_vmap_a_layer_sees_one_sample_without_the_dimension_of_the_batch():
    model, images = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)).eval(), torch.randn(5, 1, 6, 6)
    with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
        func.vmap(func.jacrev(model))(images)
    jacobians = func.vmap(func.jacrev(lambda x: model(x[None])[0]))(images)
    assert jacobians.shape == (5, 3, 4, 4, 1, 6, 6) and jacobians.any()


def test_sync_batch_norm_in_one_process_is_batch_norm():
    layer, x = nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(layer))
    assert torch.equal(synchronised(x), layer(x)) and torch.equal(synchronised.running_mean, layer.running_mean)


def test_a_slice_is_contiguous_already_and_only_a_copy_starts_at_the_beginning_of_its_memory():
    part = torch.randn(8, 3, 4)[5:]
    assert part.contiguous() is part and part.storage_offset() > 0
    for each in (part, part.movedim(1, 2)):
        copied = each.clone(memory_format=torch.contiguous_format)
        assert copied.is_contiguous() and copied.storage_offset() == 0 and torch.equal(copied, each)


def test_instance_norm_needs_two_positions_and_a_norm_over_the_channels_one():
    for norm in (nn.InstanceNorm2d(3), nn.InstanceNorm2d(3).eval(), nn.InstanceNorm2d(3, track_running_stats=True)):
        with pytest.raises(ValueError, match="Expected more than 1 spatial element when training"):
            norm(torch.randn(8, 3, 1, 1))
    for norm in (nn.InstanceNorm2d(3, track_running_stats=True).eval(), nn.GroupNorm(1, 3)):
        assert norm(torch.randn(8, 3, 1, 1)).any()


def test_layer_norm_takes_channels_last_and_group_norm_in_one_group_is_another_norm():
    layer, x = nn.LayerNorm(3), torch.randn(2, 3, 4, 4)
    with pytest.raises(RuntimeError, match=r"Given normalized_shape=\[3\], expected input with shape \[\*, 3\]"):
        layer(x)
    y, z = layer(x.movedim(1, -1)).movedim(-1, 1), nn.GroupNorm(1, 3)(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 4, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.mean((1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
    assert z.mean(1).abs().max() > 0.1
    assert nn.LayerNorm(4)(torch.randn(2, 4, 3, 4)).shape == (2, 4, 3, 4)


def test_fusing_needs_one_mode_and_quantisation_aware_training_another_function():
    def layers(convolution, norm):
        return nn.Sequential(nn.Conv2d(1, 3, 3).train(convolution), nn.BatchNorm2d(3).train(norm))

    names = [["0", "1"]]
    with pytest.raises(AssertionError, match="Fusion only for eval!"):
        quantization.fuse_modules(layers(True, True), names)
    for fuse in (quantization.fuse_modules, quantization.fuse_modules_qat):
        with pytest.raises(AssertionError, match="must be in the same mode"):
            fuse(layers(True, False), names)
    assert isinstance(quantization.fuse_modules(layers(False, False).eval(), names)[0], nn.Conv2d)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:Please use quant_min and quant_max")
def test_fusing_for_quantisation_aware_training_keeps_bn_which_can_be_frozen_afterwards():
    model = quantization.fuse_modules_qat(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), [["0", "1"]])
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    model = quantization.prepare_qat(model)
    (norm,) = (each for each in model.modules() if isinstance(each, nn.BatchNorm2d))
    means = [norm.running_mean.clone()]
    for freeze in (False, True):
        if freeze:
            model.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats)
        model.train()(torch.randn(4, 1, 8, 8))
        means.append(norm.running_mean.clone())
    assert not torch.equal(*means[:2]) and torch.equal(*means[1:])
