"""Findings about what enters the statistics: positions in place of features, copies, padding, sorted targets."""

import pytest
import torch
from doctor_examples import batches, digits, not_notes
from planted_networks import ARCHITECTURES, few, norms, trained
from torch import nn

from bnlib.doctor import diagnose

LENGTH = 8


class OnSequences(nn.Module):
    """A network on the rows of a digit: a body, then a norm with or without the features in dimension 1."""

    def __init__(self, kind, transposed, features=LENGTH):
        super().__init__()
        torch.manual_seed(0)
        bodies = {
            "linear": lambda: nn.Sequential(nn.Linear(8, features), nn.ReLU()),
            "recurrent": lambda: nn.LSTM(8, features, batch_first=True),
            "convolution": lambda: nn.Conv1d(8, features, 3, padding=1),
        }
        self.body, self.transposed, self.kind = bodies[kind](), transposed, kind
        self.norm, self.head = nn.BatchNorm1d(features if transposed else LENGTH), nn.Linear(features, 10)

    def forward(self, x):
        x = x.flatten(1).unflatten(1, (LENGTH, 8))
        x = self.body(x.transpose(1, 2)).transpose(1, 2) if self.kind == "convolution" else self.body(x)
        x = x[0] if isinstance(x, tuple) else x
        x = self.norm(x.transpose(1, 2).contiguous()).transpose(1, 2) if self.transposed else self.norm(x)
        return self.head(x.mean(1))


def codes(report):
    return {code for code, _ in not_notes(report)}


@pytest.mark.parametrize("kind", ["linear", "recurrent", "convolution"])
def test_a_norm_of_positions_is_told_from_one_of_features(kind):
    found = diagnose(OnSequences(kind, transposed=False), few()).by_code("features-in-last-dimension")
    assert [(each.layer, each.severity) for each in found] == [("norm", "warning")]
    assert "(N, 8, 8)" in found[0].evidence and "LayerNorm" in found[0].remedy
    assert not diagnose(OnSequences(kind, transposed=True), few()).by_code("features-in-last-dimension")


def test_a_norm_of_positions_is_meant_where_their_number_is_not_that_of_the_features():
    assert not diagnose(OnSequences("linear", False, features=6), few()).by_code("features-in-last-dimension")


def copies(x, y):
    return x[:4].repeat(8, 1, 1, 1), y[:4].repeat(8)


def filled_up(x, y):
    return torch.cat([x[:8], torch.zeros_like(x[8:])]), y


def augmented(x, y):
    return x.repeat_interleave(2, 0) + 0.01 * torch.randn(2 * len(x), *x.shape[1:]), y.repeat_interleave(2)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_copies_in_a_batch_are_counted(name):
    for change, words in ((copies, "holds 4 different ones"), (filled_up, "24 samples have the same value")):
        (found,) = diagnose(trained(name), few(change=change)).by_code("repeated-samples")
        assert found.severity == "warning" and words in found.evidence, found
    assert not diagnose(trained(name), few(change=augmented)).by_code("repeated-samples")
    (found,) = diagnose(trained(name), batches(64, 8, change=lambda x, y: (x[:32].repeat(2, 1, 1, 1), y))).by_code(
        "repeated-samples"
    )
    assert found.severity == "note"


def test_data_with_few_different_samples_are_left_alone():
    states = torch.randn(6, 5)
    chosen = torch.randint(6, (8, 64), generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6))
    assert not diagnose(model, [(states[each], each) for each in chosen]).by_code("repeated-samples")


def with_outliers(numbers, factor=300.0, count=8):
    """Batches of digits, in some of which one image is many times as bright."""
    some = batches(count=count)
    for number in numbers:
        x, y = some[number]
        some[number] = x * torch.where(torch.arange(len(x)) == 3, factor, 1.0)[:, None, None, None], y
    return some


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outliers_are_found_in_the_first_layer_with_their_batch(name):
    (found,) = diagnose(trained(name), with_outliers([5])).by_code("outliers")
    assert found.layer == next(iter(norms(trained(name)))) and "In 1 of 8 batches" in found.evidence
    assert "in batch 5" in found.evidence and found.severity in ("warning", "error")
    # If half of the batches are like that, they are a kind of data, and other checks speak of it.
    assert not diagnose(trained(name), with_outliers([1, 3, 5, 7])).by_code("outliers")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_outlier_is_not_taken_for_training_in_eval_mode(name):
    report = diagnose(trained(name), with_outliers([0], factor=1e4, count=20))
    assert "outliers" in report.codes and "trained-in-eval-mode" not in report.codes


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_that_is_worse_than_a_constant_is_not_said_to_use_the_batch(name):
    generator, model = torch.Generator().manual_seed(0), trained(name)
    with torch.no_grad():
        list(model.parameters())[-2].mul_(8)
    some = [(x, torch.randint(10, y.shape, generator=generator)) for x, y in batches(size=16, count=24)]
    assert "relies-on-batch-statistics" not in diagnose(model, some).codes


class Masked(nn.BatchNorm1d):
    """A norm of the real positions, shape (N, C, L)."""

    def forward(self, x, mask):
        rows = x.transpose(1, 2)
        return torch.zeros_like(rows).masked_scatter(mask[..., None], super().forward(rows[mask])).transpose(1, 2)


class OnPadded(nn.Module):
    def __init__(self, masked, features_last):
        super().__init__()
        self.masked, self.features_last = masked, features_last
        self.first, self.second = nn.Conv1d(4, 6, 1), nn.Conv1d(6, 5, 1)
        self.norm = (Masked if masked else nn.BatchNorm1d)(6)

    def forward(self, x):
        x = x.transpose(1, 2) if self.features_last else x
        real = (x != 0).any(1)
        x = self.first(x)
        x = self.norm(x, real) if self.masked else self.norm(x)
        return self.second(x).mean(2)


def sequences(shortest, usual, longest, features_last=False):
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(6):
        lengths = torch.randint(shortest, usual + 1, (32,), generator=generator)
        lengths[0] = longest
        x = torch.randn(32, 4, longest, generator=generator) + 1
        x = x * (torch.arange(longest) < lengths[:, None])[:, None]
        found.append((x.transpose(1, 2) if features_last else x, torch.randint(5, (32,), generator=generator)))
    return found


def padded_images(channels, smallest, black=0.0):
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(6):
        sizes = torch.randint(smallest, 13, (32, 2), generator=generator)
        sizes[0] = 12
        x = torch.randn(32, channels, 12, 12, generator=generator) + 1
        x = x * (torch.rand(32, 1, 12, 12, generator=generator) >= black)
        for image, (height, width) in zip(x, sizes.tolist(), strict=True):
            image[:, height:], image[:, :, width:] = 0, 0
        found.append((x, torch.randint(5, (32,), generator=generator)))
    return found


def test_padding_of_images_that_enters_the_statistics_is_found():
    def report(channels, smallest, black=0.0):
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
        )
        return diagnose(model, padded_images(channels, smallest, black)).by_code("padding-in-statistics")

    (found,) = report(3, 3)
    assert (found.layer, found.severity) == ("1", "warning") and "positions of the images" in found.evidence
    (found,) = report(3, 7)
    assert found.severity == "note"
    # No padding; drawings on black, and images of one channel, whose borders are often black.
    assert not report(3, 12) and not report(3, 3, black=0.5) and not report(1, 3)


@pytest.mark.parametrize("features_last", [False, True])
def test_padding_that_enters_the_statistics_is_found(features_last):
    for lengths, severity in (((2, 12, 40), "warning"), ((8, 20, 20), "note")):
        some = sequences(*lengths, features_last)
        (found,) = diagnose(OnPadded(False, features_last), some).by_code("padding-in-statistics")
        assert (found.layer, found.severity) == ("norm", severity) and "are padding" in found.evidence
        assert not diagnose(OnPadded(True, features_last), some).by_code("padding-in-statistics")
    whole = sequences(20, 20, 20, features_last)
    assert not diagnose(OnPadded(False, features_last), whole).by_code("padding-in-statistics")


def by_contrast(order):
    """Pairs of images and masks in two classes of brightness, in the order of how bright the images are."""
    x = digits().train_x[:384]
    index = x.mean((1, 2, 3)).argsort() if order == "sorted" else torch.arange(384)
    return [(x[each], (x[each, 0] > 0.5).long()) for each in index.split(32)]


def test_masks_and_numbers_tell_that_batches_are_sorted():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    kinds = {
        "masks": lambda x, y: (x, y),
        "numbers": lambda x, y: (x, x.mean((1, 2, 3))),
        "several labels": lambda x, y: (x, (x.flatten(1)[:, 20:24] > 0.5).long()),
    }
    for change in kinds.values():
        for order in ("sorted", "shuffled"):
            some = [change(*each) for each in by_contrast(order)]
            found = diagnose(model, some, loss=lambda outputs, targets: outputs.square().mean())
            assert ("batches-not-representative" in found.codes) == (order == "sorted"), str(found)


def test_masks_alone_tell_it_where_the_images_do_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1))
    labels = torch.arange(5).repeat_interleave(64)
    masks = torch.where(torch.rand(320, 8, 8) < 0.3, labels[:, None, None], 0)
    some = list(zip(torch.randn(320, 1, 8, 8).split(32), masks.split(32), strict=True))
    (found,) = diagnose(model, some).by_code("batches-not-representative")
    assert "share of each class in the targets" in found.evidence
    order = torch.randperm(320)
    some = list(zip(torch.randn(320, 1, 8, 8).split(32), masks[order].split(32), strict=True))
    assert not codes(diagnose(model, some))


def head_with_nan(model):
    head = [each for each in model.modules() if isinstance(each, nn.Linear)][-1]
    with torch.no_grad():
        head.weight[0, 0] = float("nan")
    return model


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("targets", [False, True])
def test_nan_behind_the_last_norm_layer_is_found(targets, inference):
    model = head_with_nan(trained("fully connected"))
    model.train(not inference)
    some = [(x, y) if targets else x for x, y in few()]
    (found,) = diagnose(model, some, inference=inference).by_code("non-finite-values")
    assert (found.layer, found.severity) == ("", "error")
    assert ("the loss in train mode is nan" if targets else "the outputs hold nan") in found.evidence
    assert "Parameters with nan or infinite values: " in found.evidence and "weight" in found.evidence


def test_a_loss_that_is_nan_is_found_and_one_that_is_finite_is_not():
    model, some = trained("fully connected"), few()
    for targets, codes in ((float("nan"), ["non-finite-values"]), (0.5, [])):
        changed = [(x, torch.full((len(x), 10), targets)) for x, _ in some]
        report = diagnose(model, changed, loss=nn.functional.mse_loss)
        assert [each.code for each in report if each.code == "non-finite-values"] == codes
    numbers = iter(range(10_000))
    one_bad = diagnose(model, some, loss=lambda out, y: out.sum() * 0 + (1 if next(numbers) else float("inf")))
    assert f"In 1 of {len(some)} batches, such as batch 0," in one_bad[0].evidence
