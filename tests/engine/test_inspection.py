"""What the engine shows of the inside of a network is what PyTorch has there."""

from __future__ import annotations

import cases
import pytest
import reference
import torch
import training_engine
from torch import nn
from torch.nn import functional as F

STEPS = 5
INSPECT = """([digits, given, steps, request]) => {
  const engine = trainingEngine();
  const { settings: { complete }, datasets: { dataset }, training: { Training }, inspection: { inspect } } = engine;
  const settings = complete(given);
  const training = new Training(settings, dataset(settings.data, digits, settings.seed));
  training.first();
  for (let i = 0; i < steps; i++) training.step();
  const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
  return JSON.parse(JSON.stringify(inspect(training, request), plain));
}"""


def inspected(page, settings: dict, steps: int, request: dict) -> dict:
    page.goto("about:blank")
    page.add_script_tag(content=training_engine.joined(training_engine.modules()))
    return page.evaluate(INSPECT, [training_engine.digits(), settings, steps, request])


def in_pytorch(settings: dict) -> tuple[nn.Sequential, torch.Tensor]:
    """The network after ``STEPS`` steps, with the gradients of the last one, and the values behind each layer."""
    (data,), model = reference.data(settings), reference.network(settings)
    optimiser = torch.optim.SGD(model.parameters(), settings["learningRate"])
    stream = reference.sampler(settings)(data.train_y, settings["batchSize"], settings["seed"])
    for _ in range(STEPS):
        index, values = next(stream), []
        x = data.train_x[index]
        for layer in model:
            x = layer(x)
            values.append(x.detach())
        optimiser.zero_grad()
        F.cross_entropy(x, data.train_y[index]).backward()
        optimiser.step()
    return model, values


def histogram(values: torch.Tensor, bins: int) -> list[int]:
    """One row per channel over the range of all channels."""
    low, high = values.min().item(), values.max().item()
    return [int(count) for channel in values.T for count in torch.histc(channel, bins, low, high)]


@pytest.fixture(scope="module")
def settings() -> dict:
    return cases.case({"kind": "batch_norm"}, steps=50)


def test_a_layer_is_as_in_pytorch(page, settings):
    found = inspected(page, settings, STEPS, {"layer": 1, "bins": 10, "digits": [5, 300]})
    model, values = in_pytorch(settings)
    before, after, norm = values[4], values[5], model[5]
    assert (found["step"], found["layer"], found["channels"]) == (STEPS, 1, 13)
    for name, expected in (("before", before), ("after", after)):
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(
            (expected.min().item(), expected.max().item())
        )
        assert found[name]["counts"] == histogram(expected, 10)
    variance, mean = torch.var_mean(before, 0, correction=0)
    statistics = {
        "batchMean": mean,
        "batchVariance": variance,
        "runningMean": norm.running_mean,
        "runningVariance": norm.running_var,
    }
    assert found["statistics"] == {name: pytest.approx(value.tolist()) for name, value in statistics.items()}


def test_gradients_and_predictions_are_as_in_pytorch(page, settings):
    found = inspected(page, settings, STEPS, {"layer": 0, "digits": [5, 300]})
    model, _ = in_pytorch(settings)
    names = {"weight": (1, "weight"), "bias": (1, "bias"), "gamma": (2, "weight"), "beta": (2, "bias")}
    for place, gradients in zip((0, 3), found["gradients"][:2], strict=True):
        norms = {name: getattr(model[place + at], of).grad.norm().item() for name, (at, of) in names.items()}
        assert gradients == pytest.approx(norms)
    last = found["gradients"][2]
    assert (last["weight"], last["gamma"]) == (pytest.approx(model[7].weight.grad.norm().item()), None)
    (data,) = reference.data(settings)
    for index, prediction in zip([5, 300], found["predictions"], strict=True):
        logits = model.eval()(data.test_x[[index]])
        assert prediction["probabilities"] == pytest.approx(logits.softmax(1)[0].tolist())
        assert (prediction["index"], prediction["label"]) == (index, data.test_y[index])
        assert prediction["input"] == data.test_x[index].flatten().tolist()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("rms_norm", {"weight": (1, "weight"), "bias": (1, "bias"), "gamma": (2, "weight")}),
        ("weight_norm", {"weight": (1, "parametrizations.weight.original1"), "bias": (1, "bias")}),
        ("cosine", {"weight": (1, "weight")}),
    ],
)
def test_gradients_are_those_of_the_parameters_that_a_layer_has(page, kind, names):
    settings = cases.case({"kind": kind}, steps=50)
    found = inspected(page, settings, STEPS, {"layer": 0})["gradients"][0]
    model, _ = in_pytorch(settings)
    norms = {name: model[at].get_parameter(of).grad.norm().item() for name, (at, of) in names.items()}
    assert found == pytest.approx(dict.fromkeys(("weight", "bias", "gamma", "beta")) | norms)


def test_domain_specific_statistics_are_those_of_the_newest_batch(page):
    settings = cases.case({"kind": "domain_batch_norm"}, steps=50, data={"name": "two_domains"})
    found = inspected(page, settings, STEPS, {"layer": 0, "digits": [5]})
    expected = reference.trained(settings | {"steps": STEPS, "checkpoints": [STEPS]})["running"][1]
    assert found["statistics"]["runningMean"] == pytest.approx(expected["mean"].tolist())


def test_before_the_first_step_there_are_activations_but_no_gradients(page, settings):
    found = inspected(page, settings, 0, {"layer": 0})
    assert found["step"] == 0 and found["gradients"] == [] and found["predictions"] == []
    assert sum(found["before"]["counts"]) == 8 * 18
    assert found["statistics"]["runningMean"] == [0] * 18
    assert any(found["statistics"]["batchMean"])


def test_without_statistics_per_channel_there_are_none(page):
    for kind in ("none", "layer_norm"):
        assert inspected(page, cases.case({"kind": kind}), 1, {"layer": 0})["statistics"] is None
