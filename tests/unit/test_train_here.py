"""The description of a training for the page: values of the fields, ranges of seeds, colours."""

import json
import re

import numpy as np
import pytest

from bnlib import BatchNorm
from bnlib.experiments.alternatives import contest
from bnlib.experiments.failing import initial_gamma
from bnlib.experiments.formula import training_curves
from bnlib.figures.methods import METHOD_COLORS
from bnlib.widgets import Explorer, Slider, TrainHere, in_the_page, laboratory
from bnlib.widgets.train_here import FIELDS

SETTINGS = [{"lr": 0.1}, {"lr": 1.0}]


def start(lr):
    return {"batch_size": 8, "lr": lr, "epochs": 2, "seed": 0}


def test_values_that_are_the_same_everywhere_stand_once():
    made = TrainHere(start, ["batch norm"]).description("x", SETTINGS)
    assert made["start"] == {"batch_size": 8, "lr": [0.1, 1.0], "epochs": 2, "seed": 0}
    assert [field["name"] for field in made["fields"]] == ["batch_size", "lr", "epochs", "seed"]
    assert made["chosen"] == ["batch norm"] and made["bands"] is None


def test_a_run_that_diverged_is_infinite_in_the_median_and_absent_in_the_range():
    runs = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, np.nan]])
    made = TrainHere(start, ["batch norm"], lambda lr: {"batch norm": {"epoch": [0, 1 / 3], "train_loss": runs}})
    bands = made.description("x", SETTINGS)["bands"]
    assert bands[0] == bands[1] == {"batch norm": {"epoch": [0, 0.333], "train_loss": [[1, 2], [3, None], [5, 2]]}}


def test_a_setting_that_the_page_cannot_train_has_no_bands():
    def only_small(lr):
        return start(lr) if lr < 1 else None

    made = TrainHere(only_small, ["batch norm"], lambda lr: {}).description("x", SETTINGS)
    assert made["covered"] == [True, False] and made["bands"] == [{}, None]
    assert made["start"] == {"batch_size": 8, "lr": 0.1, "epochs": 2, "seed": 0}


def test_a_position_of_chapter_7_is_its_network():
    """Width, depth, place of the norm and skip connections are those of the experiment's networks."""
    for label, name in initial_gamma.NETWORK_LABELS.items():
        (made,) = [in_the_page.initial_gammas().start(label, 0.1)]
        model = initial_gamma.make(name, 0.1, 0)
        norms = [layer for layer in model.modules() if isinstance(layer, BatchNorm)]
        behind = [type(layer).__name__ for layer in model][2]
        assert made["depth"] == len(norms) and {layer.num_features for layer in norms} == {made["width"]}
        assert made["skip"] == ("with" if behind == "Block" else "without")
        assert made["placement"] == ("after the ReLU" if behind == "ReLU" else "before the ReLU")


def test_the_page_has_every_norm_of_chapter_9():
    made = in_the_page.alternatives().description("x", [{"budget": "equal samples", "construction": "shuffled",
                                                         "batch_size": 64}])  # fmt: skip
    names = ["Full Normalization" if name == "Full Norm" else name for name in contest.NORMS]
    assert list(made["norms"]) == names
    assert {"FRN", "Ghost BN", "cosine normalisation"} <= made["bands"][0].keys()


def test_the_page_cannot_train_on_mnist():
    towers = in_the_page.two_towers()
    assert towers.start("MNIST", 1.0, 64) is None and towers.start("inverted", 1.0, 64)["data"] == "two domains"


def test_a_norm_has_the_colour_of_the_figures():
    norms = in_the_page.labels_per_batch().description("labels", [{"labels": 1, "batch_size": 4, "lr": 0.1}])["norms"]
    assert norms["FN, running"] == {"kind": "full_norm", "color": METHOD_COLORS["FN"]}
    assert norms["batch norm"]["color"] == METHOD_COLORS["batch norm"]


def test_the_bands_of_chapter_1_are_the_committed_runs():
    setting = {"batch_size": 32, "lr": 0.1}
    (found,) = in_the_page.training_curves().description("training", [setting])["bands"]
    for norm, rows in training_curves.lookup(**setting).items():
        low, middle, high = found[norm]["test_error"]
        ends = [100 * run[-1] for run in rows["test_error"]]
        assert (low[-1], middle[-1], high[-1]) == pytest.approx((min(ends), np.median(ends), max(ends)), rel=5e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chosen": ["BN"]}, r"chosen must be among batch norm, .*, got \['BN'\]"),
        ({"fields": ["batch"]}, r"fields must be among data, .*, got \['batch'\]"),
    ],
)
def test_an_unknown_name_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainHere(**{"start": start, "chosen": [], **arguments})


def test_an_explorer_holds_the_description_at_its_end():
    def draw(figure, data, lr):
        figure.subplots().plot(data)
        return f"The learning rate is {lr}."

    slider = Slider("lr", "learning rate", [0.1, 1.0], 0.1)
    explorer = Explorer("x", "A title", [slider], lambda lr: [lr], draw, here=TrainHere(start, ["batch norm"]))
    first, second = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', explorer.html)
    assert "lines" in json.loads(first) and json.loads(second)["start"]["lr"] == [0.1, 1.0]
    assert explorer.html.endswith("</script></div>")


def test_a_situation_names_fields_and_values_of_the_laboratory():
    for each in laboratory.SITUATIONS:
        assert each.values.keys() | {each.apart} <= laboratory.START.keys() <= {*FIELDS}
        for name, value in [*each.values.items(), (each.apart, each.other)]:
            options = list(laboratory.ALL_NORMS) if name == "norm" else FIELDS[name].get("options", [value])
            assert value in options, (each.name, name)
        assert (each.values | laboratory.START)[each.apart] != each.other
        assert len(re.findall(r"[.?!]( |$)", each.text.replace("model.eval()", ""))) == 2, "two sentences"
