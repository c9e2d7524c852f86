"""``bnlib.diagnose`` reports nothing on healthy models and never changes the model."""

import random

import numpy as np
import pytest
import torch
from doctor_examples import (
    MLP_SIZES,
    WHOLE,
    batches,
    diagnose_unchanged,
    displaced,
    everything,
    findings,
    not_notes,
    same,
    settle,
    train,
    trained,
)
from torch import nn
from torch.nn import functional as F

from bnlib import NORMS, models
from bnlib.doctor import diagnose


def upsampled(x, y):
    return F.interpolate(x, scale_factor=4), y


def digit_rows(x, y):
    return x.flatten(1).unflatten(1, (8, 8)), y[:, None].expand(-1, 8)


ZOO = {
    "mlp": (lambda norm, seed: models.mlp(MLP_SIZES, norm, seed=seed), None),
    "after": (lambda norm, seed: models.mlp(MLP_SIZES, norm, placement="after", seed=seed), None),
    "logistic": (lambda norm, seed: models.logistic_regression(64, 10, norm, seed=seed), None),
    "deep_stack": (lambda norm, seed: models.deep_stack(12, 32, norm, in_features=64, num_classes=10, seed=seed), None),
    "small_cnn": (lambda norm, seed: models.small_cnn(norm=norm, width=8, seed=seed), None),
    "lian_figure_6_cnn": (
        lambda norm, seed: models.lian_figure_6_cnn((1, 8, 8), norm=norm, channels=(6, 8), seed=seed),
        None,
    ),
    "resnet18": (lambda norm, seed: models.resnet18(in_channels=1, norm=norm, width=4, seed=seed), None),
    "vgg": (lambda norm, seed: models.vgg(in_channels=1, norm=norm, depth=11, width=4, seed=seed), upsampled),
    "lstm": (lambda norm, seed: models.lstm_stack(2, 16, norm, in_features=8, num_classes=10, seed=seed), digit_rows),
    "steps": (
        lambda norm, seed: models.lstm_stack(2, 16, norm, steps=8, in_features=8, num_classes=10, seed=seed),
        digit_rows,
    ),
}  # fmt: skip


BY_BATCH = {"batch_norm", "full_norm", "batch_renorm"}


def healthy(name, norm, seed):
    make, change = ZOO[name]
    options = {"change": change} if change else {}
    size = (32, 64)[seed % 2]
    # The outputs of LSTMs are so small at first that after 60 batches the initial variance of 1 dominates the average.
    steps = 120 if change is digit_rows else 30
    some = batches(size, steps, seed=seed, **options)
    model = settle(train(make(norm, seed), some, steps), some)
    return model, batches(size, 5, seed=100 + seed, **options)


@pytest.mark.parametrize("norm", sorted(BY_BATCH))
@pytest.mark.parametrize("name", ZOO)
def test_healthy_models_get_no_findings(name, norm):
    for seed in range(1 if name in ("resnet18", "vgg", "steps") else 2):
        model, few = healthy(name, norm, seed)
        for inference in (False, True)[: 2 - seed]:
            report = diagnose(model.train(not inference), few, inference=inference)
            # Batch Renorm's momentum is 0.01: 60 batches are too few for its averages, which is reported.
            allowed = {"running-statistics-mismatch", "eval-mode-distorted"} if norm == "batch_renorm" else set()
            assert not {code for code, _ in not_notes(report)} - (allowed if inference else set()), str(report)
    assert not diagnose(model.train(), [x for x, _ in few]).by_code("batches-not-representative")


def test_norms_without_statistics_of_batches_have_nothing_to_check():
    for name in NORMS.keys() - BY_BATCH - {"ghost_batch_norm"}:
        model = ZOO["small_cnn" if name == "instance_norm" else "mlp"][0](name, 0)
        if name == "online_norm":
            continue
        report = diagnose_unchanged(model, batches(count=2))
        unknown = name in ("moving_average_batch_norm", "cross_iteration_batch_norm")
        expected = "does not know the statistics" if unknown else "nothing to check"
        assert not report and not report.checked and expected in report.remarks[0]


def test_a_compiled_model_is_checked():
    model = trained("mlp")
    model.get_submodule("2").running_mean += 3 * model.get_submodule("2").running_var.sqrt()
    assert findings(torch.compile(model, backend="eager"), batches()) == {
        WHOLE,
        ("running-statistics-mismatch", "_orig_mod.2"),
    }


def test_sync_batch_norm_is_checked_without_a_process_group():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(trained("cnn"))
    assert not diagnose_unchanged(model, batches())
    assert findings(model, batches(), inference=True) == {("train-mode-at-inference", "")}


def test_nothing_is_changed_by_an_error():
    model = trained("mlp")
    model[0].register_forward_hook(lambda *_: None)
    train(model, batches(), 1)
    odd = [torch.randn(4, 1, 8, 8), torch.randn(4, 1, 7, 7)]
    before = everything(model)
    with pytest.raises(RuntimeError) as caught:
        diagnose(model, odd)
    assert "diagnose called it with batch 1" in caught.value.__notes__[0]

    def loss(outputs, targets):
        torch.rand(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        diagnose(model, batches(), loss=loss)
    assert same(before, everything(model))


def test_a_loader_that_shuffles_leaves_the_generators():
    class Loader:
        def __iter__(self):
            for _ in range(4):
                random.random()
                yield torch.from_numpy(np.random.rand(16, 64)).float(), torch.randint(10, (16,))  # noqa: NPY002

    diagnose_unchanged(trained("mlp"), Loader())


def test_a_loss_of_the_user_is_used():
    def change(x, y):
        return x, F.one_hot(y, 10).float()

    def loss(outputs, targets):
        return F.mse_loss(outputs.softmax(1), targets)

    report = diagnose_unchanged(displaced("mlp", "2"), batches(change=change), loss=loss)
    assert [each.severity for each in report] == ["error"] * 2 and "(error" not in report[0].evidence
    report = diagnose_unchanged(displaced("mlp", "2"), batches(change=change))
    assert [each.severity for each in report] == ["warning"] * 2 and "pass loss=" in report.remarks[0]
