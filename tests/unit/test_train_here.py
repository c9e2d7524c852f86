"""The description of a training for the page: values of the fields, ranges of seeds, colours."""

import json
import re

import numpy as np
import pytest

from bnlib import BatchNorm
from bnlib.experiments.alternatives import contest
from bnlib.experiments.failing import initial_gamma
from bnlib.experiments.formula import training_curves
from bnlib.experiments.full_normalization import mcsgd_paths, oracles_on_digits
from bnlib.experiments.objective import two_weights
from bnlib.experiments.perils import gan_discriminator, train_mode_at_inference
from bnlib.figures.methods import METHOD_COLORS
from bnlib.figures.objective import CONSTRUCTION_STYLES
from bnlib.schedules import PowerSchedule
from bnlib.widgets import Explorer, Slider, TrainHere, in_the_page, laboratory, small_problems
from bnlib.widgets.train_here import ALPHAS, FIELDS

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


def test_the_page_trains_the_fully_connected_network_of_chapter_6_and_marks_the_committed_ends():
    training, found = (
        in_the_page.train_mode_at_inference(),
        train_mode_at_inference.load()["fully connected", "shuffled"],
    )
    settings = [{"network": name, "batch_size": 4} for name in train_mode_at_inference.NETWORKS]
    made = training.description("in-use", settings)
    assert made["covered"] == [True, False] and made["bands"][1] is None
    assert "trains the fully connected network in your browser" in made["trainer"]
    start = made["start"]
    model = train_mode_at_inference.network("fully connected", seed=0)
    assert [layer.num_features for layer in model if isinstance(layer, BatchNorm)] == start["depth"] * [start["width"]]
    assert {key: start[key] for key in train_mode_at_inference.TRAINING} == train_mode_at_inference.TRAINING
    assert start["evaluation_batch_size"] == 4 and "when" not in made["fields"][0]
    band = made["bands"][0]["batch norm"]
    assert band["epoch"] == [pytest.approx(440 * 32 / 1437, abs=5e-3), 10]
    for key, accuracies in (("test_error", found["eval_mode"]), ("train_mode_error", found["train_mode"][:, 2])):
        errors = 100 - 100 * accuracies
        for values, expected in zip(band[key], (errors.min(), np.median(errors), errors.max()), strict=True):
            assert values == pytest.approx([expected, expected], rel=5e-3)


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


def test_a_small_problem_counts_steps_and_has_fields_of_its_own():
    (setting,) = [{"construction": "fixed", "batch_size": 4, "lr": 3.0}]
    made = small_problems.two_weights().description("surface", [setting])
    assert (made["problem"], made["x"], made["series"]) == ("two_weights", "step", "construction")
    names = {field["name"]: field for field in made["fields"]}
    assert names["batch_size"]["most"] == 12 and names["construction"]["options"] == list(two_weights.CONSTRUCTIONS)
    assert list(made["norms"]) == list(two_weights.CONSTRUCTIONS)
    assert made["norms"]["one worker"] == {"construction": "one_worker", "color": CONSTRUCTION_STYLES["one worker"][0]}
    networks = TrainHere(start, ["batch norm"]).description("x", SETTINGS)
    assert (networks["problem"], networks["x"], networks["series"]) == (None, "epoch", "norm")


@pytest.mark.parametrize(("construction", "batch_size"), [("all subsets", 3), ("one worker", 4), ("fixed", 6)])
def test_the_minima_on_the_page_are_those_of_the_surfaces(construction, batch_size):
    found = small_problems.minima()[construction]
    assert len(found) == small_problems.LARGEST_BATCHES[construction] and found[0] is None
    assert found[batch_size - 1] == pytest.approx(two_weights.surface(construction, batch_size).minimiser, abs=6e-4)


def test_the_bands_of_the_parameter_are_its_committed_paths():
    setting = {"oracle": "running", "alpha": "(k+1)^-0.4", "lr": 0.1}
    made = small_problems.composition().description("composition", [setting])
    paths = mcsgd_paths.lookup(**setting)
    low, middle, high = made["bands"][0]["running"]["median"]
    assert made["bands"][0]["running"]["step"] == paths.steps.tolist()
    ends = paths.values[:, -1]
    assert (low[-1], middle[-1], high[-1]) == pytest.approx((ends.min(), np.median(ends), ends.max()), rel=5e-3)
    assert made["start"]["alpha"] == "(k + 1)⁻⁰·⁴"


def test_the_discriminator_starts_with_the_settings_of_the_chapter():
    settings = [
        {"kind": kind, "batches": batches} for kind in ("shifted", "reshaped") for batches in ("separate", "mixed")
    ]
    made = in_the_page.discriminator().description("discriminator", settings)
    start = made["start"]
    assert (start["kind"], start["batches"]) == (["shifted"] * 2 + ["reshaped"] * 2, ["separate", "mixed"] * 2)
    assert (start["batch_size"], start["lr"], start["width"], start["steps"]) == (64, 0.05, 64, 1500)
    assert made["x"] == "step" and set(made["norms"]) == set(gan_discriminator.NORMS)
    assert made["norms"]["layer norm"]["norm"] == "layer_norm"


@pytest.mark.parametrize("alpha", mcsgd_paths.ALPHAS)
def test_each_alpha_of_chapter_5_is_the_same_schedule_on_the_page(alpha):
    (setting,) = [{"oracle": "same", "alpha": alpha, "lr": 0.1}]
    start = small_problems.composition().start(**setting)
    arguments = ALPHAS[start["alpha"]]
    found, expected = start["weight"] if arguments is None else PowerSchedule(**arguments), mcsgd_paths.ALPHAS[alpha]
    assert found == expected


@pytest.mark.parametrize("alpha", oracles_on_digits.ALPHAS)
def test_each_alpha_of_full_normalization_is_the_same_schedule_on_the_page(alpha):
    start = in_the_page.alphas().start(alpha=alpha, construction="shuffled", lr=0.1)
    bounded = {"floor": start["floor"]} if start["alpha"] == "1/(k + 1), bounded" else {}
    assert PowerSchedule(**ALPHAS[start["alpha"]], **bounded) == oracles_on_digits.ALPHAS[alpha]


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
