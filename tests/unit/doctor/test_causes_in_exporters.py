"""What the rows about exporters, conversions and single values say of PyTorch."""

import copy
import warnings

import pytest
import torch
from cases_by_kind_of_network import OverTokens, OwnNorm
from cases_in_exporters import WithActivation, exported_graph, quantised_behind_the_activation, transposed
from doctor_examples import batches, trained
from torch import nn
from torch.nn.utils import fusion


@pytest.fixture
def to_onnx(tmp_path):
    """Export a network by TorchScript."""

    def export(network, *inputs, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this exporter is deprecated
            torch.onnx.export(network.eval(), inputs, tmp_path / "network.onnx", dynamo=False, **options)

    return export


def test_a_quantised_norm_alone_is_not_exported_and_one_in_float_is_no_quantised_norm(to_onnx):
    pytest.importorskip("onnx")
    with pytest.raises(torch.onnx.errors.UnsupportedOperatorError, match="quantized::batch_norm2d"):
        to_onnx(quantised_behind_the_activation(in_float=False), torch.randn(2, 1, 8, 8))
    network = quantised_behind_the_activation(in_float=True)
    assert type(network.norm) is nn.BatchNorm2d and network(torch.randn(2, 1, 8, 8)).isfinite().all()


class AssignedByIndex(nn.Module):
    """A norm whose input was assigned to a part of a tensor."""

    def __init__(self, affine):
        super().__init__()
        self.norm = nn.BatchNorm1d(4, affine=affine)

    def forward(self, x, places):
        y = torch.zeros(x.shape[0], 4, 3)
        y[:, places] = x
        return self.norm(y)


def test_the_exporter_reads_the_number_of_channels_from_gamma(to_onnx):
    pytest.importorskip("onnx")
    names = {"input_names": ["x", "places"], "dynamic_axes": {"x": [0]}}
    to_onnx(AssignedByIndex(True), torch.randn(2, 4, 3), torch.arange(4), **names)
    with pytest.raises(torch.onnx.errors.SymbolicValueError, match="batch_norm for unknown channel size"):
        to_onnx(AssignedByIndex(False), torch.randn(2, 4, 3), torch.arange(4), **names)


def test_an_exported_graph_keeps_its_mode():
    with pytest.raises(NotImplementedError, match=r"Calling eval\(\) is not supported yet"):
        exported_graph(training=True).eval()


def test_a_transposed_convolution_has_its_outputs_in_the_second_dimension_and_groups_stop():
    good = transposed(True)
    expected = good["norm"](good["convolution"](good["values"]))
    torch.testing.assert_close(good["folded"](good["values"]), expected)
    with pytest.raises(RuntimeError, match="The size of tensor a"):
        fusion.fuse_conv_bn_eval(nn.ConvTranspose2d(4, 6, 3).eval(), nn.BatchNorm2d(6).eval())
    with pytest.raises(RuntimeError, match="The size of tensor a"):
        fusion.fuse_conv_bn_eval(nn.ConvTranspose2d(4, 4, 3, groups=2).eval(), good["norm"], transpose=True)


def test_instance_norm_changes_the_memory_format_and_one_group_per_channel_computes_the_same():
    x = torch.randn(2, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    norms = nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(4, 4), nn.BatchNorm2d(4)
    assert [norm(x).is_contiguous(memory_format=torch.channels_last) for norm in norms] == [False, True, True]
    torch.testing.assert_close(norms[0](x), norms[1](x).contiguous(), atol=1e-5, rtol=1e-5)
    assert norms[0].state_dict().keys() == norms[1].state_dict().keys()


def test_the_conversion_to_synchronised_norms_drops_a_forward_and_misses_a_plain_list():
    model = nn.Sequential(WithActivation(3), nn.InstanceNorm1d(3))
    model.plain = [nn.BatchNorm1d(3)]
    parameters = [*model.parameters()]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert [type(layer) for layer in converted] == [nn.SyncBatchNorm, nn.InstanceNorm1d]
    assert type(converted.plain[0]) is nn.BatchNorm1d
    assert all(one is other for one, other in zip(parameters, converted.parameters(), strict=True))
    alone = nn.BatchNorm1d(3)
    assert nn.SyncBatchNorm.convert_sync_batchnorm(alone) is not alone


def test_half_precision_rounds_a_tiny_variance_to_zero():
    assert torch.tensor(2.9e-8).half() == 0 and torch.tensor(3.1e-8).half() > 0


def test_a_single_row_is_an_error_of_the_layer_and_nan_in_the_function():
    averages, row = [torch.zeros(3), torch.ones(3)], torch.randn(1, 3)
    torch.batch_norm(row, torch.ones(3), torch.zeros(3), *averages, True, 0.1, 1e-5, False)
    assert averages[0].isfinite().all() and averages[1].isnan().all()
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        nn.BatchNorm1d(3)(row)


def test_an_empty_batch_leaves_the_averages():
    norm = nn.BatchNorm1d(3)
    assert norm(torch.ones(0, 3, 4)).shape == (0, 3, 4)
    assert norm.running_mean.eq(0).all() and norm.running_var.eq(1).all()


def test_an_eps_of_zero_is_refused_in_train_mode():
    norm = nn.BatchNorm1d(3, eps=0)
    with pytest.raises(ValueError, match="batch_norm eps must be positive during training, but got 0"):
        norm(torch.randn(4, 3))
    assert norm.eval()(torch.randn(4, 3)).isfinite().all()


def test_group_and_instance_norm_return_zeros_without_an_error():
    assert nn.GroupNorm(3, 3)(torch.randn(2, 3, 1, 1)).abs().max() < 1e-3
    assert nn.InstanceNorm2d(3)(torch.randn(2, 3, 1, 1).expand(2, 3, 4, 4)).abs().max() < 1e-3


def test_tokens_see_later_ones_through_bn_in_train_mode_only():
    tokens = torch.randn(4, 8, 6)
    changed = torch.cat([tokens[:, :4], torch.randn(4, 4, 6)], 1)
    for norm, sees in ((OverTokens(6), True), (OverTokens(6).eval(), False), (nn.LayerNorm(6), False)):
        assert torch.allclose(norm(tokens)[:, :4], norm(changed)[:, :4]) != sees


def test_turned_signs_give_the_outputs_of_a_negative_gamma():
    model, ((x, _), *_) = trained("mlp").eval(), batches()
    turned = copy.deepcopy(model)
    for value in (turned[1].weight, turned[1].bias, turned[2].weight, turned[2].running_mean):
        value.data[3] *= -1
    torch.testing.assert_close(turned(x), model(x))


def test_an_average_with_its_graph_stops_the_second_backward_pass():
    network = OwnNorm(detached=False)
    network(torch.randn(4, 3)).sum().backward()
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        network(torch.randn(4, 3)).sum().backward()


def test_two_vectors_become_one_and_minus_one():
    assert (nn.BatchNorm1d(5)(10 * torch.randn(2, 5)).abs() - 1).abs().max() < 0.01
