"""What the rows about kinds of training say of PyTorch."""

import copy
import functools

import pytest
import torch
from doctor_examples import batches, trained
from more_examples import on_single_images
from torch import func, nn
from torch.nn import functional as F


def test_batches_of_one_image_make_bn_instance_norm_and_its_eval_mode_useless():
    errors = {}
    instance_norm = functools.partial(nn.InstanceNorm2d, affine=True)
    for name, norm in {"bn": nn.BatchNorm2d, "instance": instance_norm}.items():
        found = on_single_images(norm)
        network, seen, clean = (found[key] for key in ("network", "seen", "clean"))
        single = torch.cat([copy.deepcopy(network)(image) for image in seen.split(1)])
        errors[name] = [F.mse_loss(outputs, clean).item() for outputs in (single, network.eval()(seen))]
    assert errors["bn"][0] == pytest.approx(errors["instance"][0], rel=0.01)
    assert errors["instance"][1] == pytest.approx(errors["instance"][0], rel=0.01)
    assert errors["bn"][1] > 5 * errors["bn"][0]


def test_a_policy_in_train_mode_gives_other_probabilities_in_a_rollout_than_in_an_update():
    policy, ((observations, _), *_) = trained("mlp"), batches(128)

    def probabilities(policy, size):
        return torch.cat([policy(part).log_softmax(1) for part in observations.split(size)])

    ratio = (probabilities(policy, 128) - probabilities(policy, 8)).exp()
    assert ratio.min() < 0.8 and ratio.max() > 1.2
    torch.testing.assert_close(probabilities(policy.eval(), 128), probabilities(policy, 8))


@pytest.mark.parametrize("training", [True, False])
def test_an_attack_in_train_mode_moves_the_running_averages(training):
    model, ((x, y), *_) = trained("mlp").train(training), batches()
    before, step = model[2].running_mean.clone(), torch.zeros_like(x, requires_grad=True)
    for _ in range(3):
        F.cross_entropy(model(x + step), y).backward()
        step.data += 0.1 * step.grad.sign()
    assert torch.equal(model[2].running_mean, before) != training


def test_dropout_alone_in_train_mode():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Sequential(nn.ReLU(), nn.Dropout(0.5)), nn.Dropout1d())
    model.train().eval()
    for m in model.modules():
        m.train(isinstance(m, nn.modules.dropout._DropoutNd))
    assert [type(m) for m in model.modules() if m.training] == [nn.Dropout, nn.Dropout1d]


def test_functional_transforms_stop_at_bn_in_train_mode_and_not_in_eval_mode_or_without_averages():
    model, x = trained("mlp").train(), torch.randn(5, 7, 1, 8, 8)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(parameters, x):
        return func.functional_call(model, (parameters, buffers), (x,)).sum()

    with pytest.raises(RuntimeError, match=r"attempted to call in-place operation .* mutate a captured Tensor"):
        func.vmap(func.grad(loss), (None, 0))(parameters, x)
    with pytest.raises(RuntimeError, match="Batch norm got a batched tensor as input while the running_mean or"):
        func.vmap(loss, (None, 0))(parameters, x)
    model.eval()
    single = func.vmap(func.grad(loss), (None, 0))(parameters, x[:, :1])
    assert all(len(each) == 5 for each in single.values())
    func.replace_all_batch_norm_modules_(model.train())
    assert func.vmap(func.grad(loss), (None, 0))(parameters, x) and not list(model.buffers())
