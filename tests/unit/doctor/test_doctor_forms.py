"""``bnlib.diagnose`` on any form of batch and of outputs: a planted fault is found, or an error says what to pass."""

import collections
import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from bnlib.doctor import diagnose, losses_by_mode

X = list(torch.randn(8, 32, 8, generator=torch.Generator().manual_seed(0)).unbind())
Y = [(x[:, 0] > 0).long() for x in X]
PAIRS = list(zip(X, Y, strict=True))


@dataclasses.dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor


@dataclasses.dataclass
class Sample:
    x: torch.Tensor
    y: torch.Tensor


class Network(nn.Module):
    """A network whose call takes other arguments and returns another form of outputs."""

    def __init__(self, shape=lambda outputs: outputs, outputs=2):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(
                nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, outputs)
            )
        self.shape = shape

    def forward(self, x):
        return self.shape(self.body(x))


class TwoInputs(Network):
    def forward(self, first, second):
        return self.body(first + second)


class AnyInputs(Network):
    def forward(self, *inputs):
        return self.body(sum(inputs))


class OwnLoss(Network):
    def forward(self, pixels, mask=None, labels=None):
        logits = self.body(pixels)
        return Output(None if labels is None else F.cross_entropy(logits, labels), logits)


class OnlyLoss(Network):
    def forward(self, x, y):
        return F.cross_entropy(self.body(x), y)


class OfSamples(Network):
    def forward(self, sample):
        return self.body(sample.x)


class OfGraphs(Network):
    """Takes attributes of the batch, as graph networks take those of a ``torch_geometric.data.Batch``."""

    def forward(self, x, edge_index, weight=None):
        return self.body(x + edge_index if weight is None else x)


class Detector(Network):
    """As torchvision's: a list of images; losses in train mode, detections in eval mode."""

    def forward(self, images, targets=None):
        outputs = self.body(torch.stack([each.flatten() for each in images]))
        if not self.training:
            return [{"scores": each} for each in outputs]
        labels = torch.cat([each["labels"] for each in targets])
        return {"classification": F.cross_entropy(outputs, labels), "box": outputs.square().mean()}


def images(x, y):
    return [each.view(2, 2, 2) for each in x], [{"labels": each[None]} for each in y]


def mapping_loss(outputs, batch):
    return F.cross_entropy(outputs, batch["b"])


FORMS = {
    "one output": (Network(lambda o: o[:, 0], 1), [(x, x[:, 0]) for x in X], {"loss": F.mse_loss}),
    "tuple of outputs": (Network(lambda o: (o, None)), PAIRS, {}),
    "mapping of outputs": (Network(lambda o: {"aux": o[:, :1], "logits": o}), PAIRS, {}),
    "segmentation": (Network(lambda o: collections.OrderedDict(out=o, aux=2 * o)), PAIRS, {}),
    "nested outputs": (Network(lambda o: [[o], {"more": o}]), PAIRS, {}),
    "the loss alone": (OnlyLoss(), PAIRS, {}),
    "pair of inputs": (TwoInputs(), [((x, x), y) for x, y in PAIRS], {}),
    "three parts": (TwoInputs(), [(x, x, y) for x, y in PAIRS], {}),
    "lists": (TwoInputs(), [[[x, x], y] for x, y in PAIRS], {}),
    "any number": (AnyInputs(), [(x, x, x, y) for x, y in PAIRS], {}),
    "keywords": (OwnLoss(), [{"pixels": x, "labels": y} for x, y in PAIRS], {}),
    "more keys": (OwnLoss(), [{"pixels": x, "labels": y, "path": ["a"] * 32} for x, y in PAIRS], {}),
    "keys without a loss": (TwoInputs(), [{"first": x, "second": x, "target": y} for x, y in PAIRS], {}),
    "another key": (Network(), [{"image": x, "label": y} for x, y in PAIRS], {}),
    "keywords and targets": (OwnLoss(), [({"pixels": x}, y) for x, y in PAIRS], {}),
    "mapping of targets": (Network(), [(x, {"id": 3 * y, "labels": y}) for x, y in PAIRS], {}),
    "dataclass": (OfSamples(), [Sample(x, y) for x, y in PAIRS], {}),
    "attributes": (OfGraphs(), [SimpleNamespace(x=x, edge_index=0 * x, y=y) for x, y in PAIRS], {}),
    "detector": (Detector(), [images(x, y) for x, y in PAIRS], {}),
    "no targets": (Network(outputs=8), X, {"loss": F.mse_loss}),
    "forward": (Network(), PAIRS, {"forward": lambda model, batch: model(batch[0])}),
    "forward and loss": (
        Network(), [{"a": x, "b": y, "c": 3} for x, y in PAIRS],
        {"forward": lambda model, batch: model(batch["a"]), "loss": mapping_loss},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "batches", "options"), FORMS.values(), ids=FORMS)
def test_a_fault_is_found_whatever_the_form_of_batches_and_outputs(model, batches, options):
    model = copy.deepcopy(model)
    for norm in (model.body[1], model.body[3]):
        norm.momentum = None
    with torch.no_grad():
        for x in X:
            model.body(x * len(batches[0]) if isinstance(model, (TwoInputs, AnyInputs)) else x)
    factor = {TwoInputs: 2, AnyInputs: 3}.get(type(model), 1)
    model.body[1].running_mean.copy_(model.body[0](factor * torch.cat(X)).mean(0).detach())
    model.body[1].running_var.copy_(model.body[0](factor * torch.cat(X)).var(0).detach())
    model.body[3].reset_running_stats()
    with torch.no_grad():
        for x in X:
            model.train().body(factor * x)
    precise = diagnose(model.eval(), batches, **options)
    assert not [each for each in precise if each.severity != "note"], str(precise)
    model.body[3].running_var.fill_(1e-4)
    report = diagnose(model.eval(), batches, **options)
    assert report.codes[0] == "eval-mode-distorted" and report[0].severity == "error", str(report)
    assert "body.3 (100%)" in report[0].evidence
    scores = losses_by_mode(model, batches, **options)
    assert scores["eval"].losses.mean() > 1.2 * scores["eval_recomputed"].losses.mean()


def test_the_loss_of_a_detector_is_that_of_its_train_mode():
    model, (batch, *_) = Detector(), [images(x, y) for x, y in PAIRS]
    with torch.no_grad():
        expected = sum(copy.deepcopy(model).train()(*batch).values())
    assert float(losses_by_mode(model, [batch])["train"].losses) == pytest.approx(float(expected), rel=1e-5)


UNFIT = {
    "mapping": ([{"a": x, "b": y} for x, y in PAIRS], r"was taken to mean arguments \(\{a: Tensor.*forward=lambda"),
    "triples": ([(x, y, 3) for x, y in PAIRS], r"that fit forward\(x\) of the model, got a batch of 3 parts.*forward="),
}


@pytest.mark.parametrize(("batches", "message"), UNFIT.values(), ids=UNFIT)
def test_a_batch_that_does_not_fit_is_described(batches, message):
    with pytest.raises(ValueError, match=message):
        diagnose(Network(), batches)


def test_what_could_not_be_checked_is_said():
    report = diagnose(Network(lambda outputs: outputs[:, 0], 1), [(x, x[:, 0]) for x in X])
    assert any("No default loss fits outputs Tensor (32,) and targets Tensor (32,)" in each for each in report.remarks)
    model = Network()
    model.train()(X[0])
    report = diagnose(model.eval(), [(x[:3], y[:3]) for x, y in PAIRS[:1]], inference=True)
    assert any("whether predictions in eval mode depend on the batch" in each for each in report.remarks)


def test_an_error_in_the_users_loss_names_what_it_was_given():
    with pytest.raises(RuntimeError) as caught:
        diagnose(Network(), PAIRS, loss=lambda outputs, targets: outputs @ targets)
    assert "outputs Tensor (32, 2) and targets Tensor (32,)" in " ".join(caught.value.__notes__)


COMPUTED = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "weight norm": nn.utils.weight_norm,
    "spectral norm": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", COMPUTED.values(), ids=COMPUTED)
def test_a_weight_that_a_hook_computed_can_be_copied(change):
    model = Network()
    change(model.body[0])
    for x, y in PAIRS:
        F.cross_entropy(model(x), y).backward()
    before = model.body[0].weight
    assert not before.is_leaf and "running-statistics-never-updated" not in diagnose(model, PAIRS).codes
    assert model.body[0].weight is before
    scores = losses_by_mode(model, PAIRS)
    with torch.no_grad():
        model.eval()
        by_hand = [F.cross_entropy(model(x), y) for x, y in PAIRS]
    torch.testing.assert_close(scores["eval"].losses.float(), torch.stack(by_hand), rtol=1e-4, atol=1e-5)


def test_a_model_without_values_is_named():
    with pytest.raises(ValueError, match=r"model must have values in its tensors, but 'body.0.weight' is on the meta"):
        diagnose(Network().to("meta"), PAIRS)
