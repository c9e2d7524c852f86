"""The training in the page in Chromium: what the laboratory promises, every control, and the book's own runs."""

import json
import re

import pytest
from conftest import FRONT, PATIENCE, ROOT
from playwright.sync_api import expect
from training_page import LABORATORY, REACHED, SAYS, choose, ends, number, press

from bnlib.experiments.alternatives.batch_sizes import EQUAL_SAMPLES
from bnlib.experiments.perils import train_mode_at_inference
from bnlib.widgets import in_the_page, laboratory
from bnlib.widgets.train_here import FIELDS

CHAPTER = "chapters/01_the_formula.html"
PERILS = "chapters/06_perils.html"
WITH_TRAINING = {
    FRONT: 1,
    CHAPTER: 1,
    "chapters/04_the_objective.html": 2,
    "chapters/05_full_normalization.html": 3,
    PERILS: 3,
    "chapters/07_why_is_my_bn_failing.html": 3,
    "chapters/09_alternatives.html": 1,
}


@pytest.mark.parametrize("situation", laboratory.SITUATIONS, ids=lambda each: each.name)
def test_a_situation_ends_as_its_text_promises(page, situation):
    """Every bound that a text names for a test error, in the order of the networks."""
    press(page, situation.title)
    first, second = ends(page)
    assert page.locator(".bnb-told").text_content() == situation.text
    promised = re.findall(r"(above|below) (\d+) %", situation.text)
    if situation.name == "frozen-statistics":
        assert not promised and number(first, "training loss") < 0.2 and "diverged" in second
        return
    for (sign, bound), text in zip(promised, (first, second), strict=True):
        assert number(text) > float(bound) if sign == "above" else number(text) < float(bound), (text, situation.text)
    losses = [number(text, "training loss") for text in (first, second)]
    if situation.name == "forgot-eval":
        assert losses[0] == losses[1]
    if situation.name == "two-domains":
        assert losses[0] < 0.2
    if situation.name == "learning-rate-10":
        assert losses[1] > 2


def test_one_image_at_a_time_in_train_mode_is_guessing(page):
    """As the page says: batch norm then gives every image the same answer, whatever the network has learned."""
    press(page, "Forgot eval()")
    page.get_by_text("Settings of the two networks").click()
    assert page.locator("[data-field=evaluation_batch_size]").is_visible()
    press(page, "Reset training")
    choose(page, evaluation="train mode", evaluation_batch_size=1, epochs=1)
    press(page, "Train")
    first, _ = ends(page)
    assert 85 < number(first) < 95 and number(first, "training loss") < 1


def test_a_link_opens_a_situation(page):
    (one_label,) = (each for each in laboratory.SITUATIONS if each.name == "one-label")
    page.goto(page.url.partition("?")[0].partition("#")[0] + laboratory.address(one_label))
    page.wait_for_selector(".bnb-situations")
    assert page.get_by_role("button", name=one_label.title).get_attribute("aria-pressed") == "true"
    assert page.locator(".bnb-news").text_content() == "Press Train to train both networks."
    page.get_by_text("Settings of the two networks").click()
    choose(page, lr=0.25)
    assert page.locator(".bnb-told").is_hidden() and "laboratory.lr=0.25" in page.url
    page.reload()
    page.wait_for_selector(".bnb-situations")
    assert page.locator("[data-field=lr] input").first.input_value() == "0.25"
    assert page.locator("[data-field=norm] select").nth(1).input_value() == "Full Normalization"


def test_pause_step_stop_and_reset(page):
    choose(page, epochs=1000, batch_size=8)
    press(page, "Train")
    page.wait_for_function(SAYS, arg="At step")
    press(page, "Pause")
    page.get_by_role("button", name="Resume").wait_for()
    at = page.locator(".bnb-progress").first.text_content
    page.wait_for_function(SAYS, arg="Paused")
    before = at()
    press(page, "Step")
    page.wait_for_function("before => document.querySelector('.bnb-progress').textContent !== before", arg=before)
    step = int(re.search(r"step (\d+)", at())[1])
    press(page, "Step")
    page.wait_for_function(SAYS, arg=f"Paused at step {step + 1} ")
    press(page, "Resume")
    press(page, "Stop")
    page.wait_for_function(SAYS, arg="Stopped")
    press(page, "Reset training")
    page.wait_for_function("!document.querySelector('.bnb-progress')")
    assert page.locator("[data-field=epochs] input").input_value() == "10"


def test_a_value_that_is_not_possible_is_told_and_not_trained(page):
    choose(page, batch_size="0.5")
    told = "“batch size” must be a whole number from 1 to 1437. It is “0.5”."
    assert page.locator("[data-field=batch_size] [role=alert]").text_content() == told
    assert (
        page.locator("[data-field=batch_size] input").evaluate(
            "field => document.getElementById(field.getAttribute('aria-describedby')).textContent"
        )
        == told
    )
    press(page, "Train")
    assert page.locator(".bnb-news").text_content() == told and not page.locator(".bnb-progress").count()


def test_numbers_as_readers_write_them(page):
    """A comma is the decimal point of many keyboards; every limit of a field is told."""
    choose(page, lr="0,25")
    assert page.locator("[data-field=lr] input").first.input_value() == "0.25" and "laboratory.lr=0.25" in page.url
    for name, given, told in (
        ("lr", "", "“learning rate” must be a number above 0. It is empty."),
        ("lr", "-1", "“learning rate” must be a number above 0. It is “-1”."),
        ("batch_size", "1,437", "“batch size” must be a whole number from 1 to 1437. It is “1,437”."),
        ("batch_size", "1,000", "“batch size” must be a whole number from 1 to 1437. It is “1,000”."),
        ("epochs", "1e4", "“epochs” must be a number above 0, at most 1000. It is “1e4”."),
        ("freeze", "never", "“freeze the statistics after step” must be a whole number of at least 0. It is “never”."),
    ):
        choose(page, **{name: given})
        assert page.locator(f"[data-field={name}] [role=alert]").first.text_content() == told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"batches": "one label", "batch_size": 200},
            "“batch size” must be from 1 to 139, the number of samples of the smallest class. It is “200”.",
        ),
        (
            {"data": "two domains", "batches": "one label"},
            "“batches” must be 'shuffled' for two domains. It is “one label”.",
        ),
    ],
)
def test_what_the_engine_refuses_is_told_with_the_names_of_the_fields(page, values, told):
    choose(page, **values)
    press(page, "Train")
    page.wait_for_function(SAYS, arg=told)
    page.wait_for_function("told => document.querySelector('.bnb-news').textContent === told", arg=told)


def test_a_micro_batch_that_does_not_fit_is_told_with_the_names_of_the_fields(visit):
    page = visit("chapters/07_why_is_my_bn_failing.html").page
    box = page.locator("#explorer-micro-batch")
    press(box, "Train here")
    choose(box, micro_batch_size=7)
    press(box, "Train")
    page.wait_for_function(SAYS, arg="“micro-batch size” must be a divisor of the batch size (256). It is “7”.")


def test_the_inside_of_a_run_that_is_gone_is_not_shown(page):
    """After Stop, Remove and Reset training; the engine has forgotten the run."""
    inside = page.locator(".bnb-inside").first
    inside.locator("summary").click()
    for name in ("Stop", "Remove run 1", "Reset training"):
        press(page, "Reset training")
        press(page, "Step")
        inside.locator(".bnb-digits").wait_for()
        press(page, name)
        inside.get_by_text("Press Train. Then you can look inside").wait_for()
        assert inside.locator(".bnb-digits").is_hidden(), name


def test_both_networks_have_a_field_for_every_setting_in_which_they_can_differ(page):
    """Also for the settings that have an effect with others only: those get the value that is needed."""
    menu = page.locator("[data-field=apart] select")
    for label in menu.locator("option").all_text_contents():
        menu.select_option(label)
        for which in ("first", "second"):
            assert page.get_by_label(f"{which} network: {label}", exact=True).is_visible(), label
    menu.select_option(FIELDS["share"]["label"])
    assert page.locator("[data-field=data] select").first.input_value() == "two domains"
    choose(page, data="digits")
    assert menu.input_value() == "normalisation", "the share has no effect on digits"


def test_the_legend_tells_the_setting_that_differs(page):
    for title, first, second in (
        ("Two domains", "share 1 from one domain", "share 0.5 from one domain"),
        ("Forgot eval()", "tested in eval mode", "tested in train mode"),
        ("Frozen running statistics", "statistics never frozen", "statistics frozen after step 44"),
    ):
        press(page, title)
        names = page.locator(".bnb-run-name")  # the runs of the last situation are there until these begin
        expect(names).to_contain_text([first, second], timeout=PATIENCE)


def test_the_reader_is_told_when_old_runs_make_room(page):
    for _ in range(9):
        press(page, "Step")
        press(page, "Stop")
    page.wait_for_function("document.querySelectorAll('.bnb-run-name').length === 16")
    press(page, "Step")
    expect(page.locator(".bnb-news")).to_contain_text("The oldest runs are removed to make room.", timeout=PATIENCE)


def test_the_engine_knows_every_choice_of_every_field(page):
    """One step with each; what the engine refuses would be in the legend."""
    for name, options in {name: field["options"] for name, field in FIELDS.items() if "options" in field}.items():
        if name in laboratory.START:
            for option in options:
                press(page, "Reset training")
                choose(page, **{name: option})
                press(page, "Step")
                page.wait_for_function(SAYS, arg="at step 1 ")
    for option in page.locator("[data-field=norm] option").all_text_contents():
        press(page, "Reset training")
        choose(page, norm=option)
        press(page, "Step")
        page.wait_for_function(SAYS, arg="at step 1 ")


def test_the_keyboard_reaches_every_number_inside_a_network(page):
    choose(page, epochs=1)
    press(page, "Train")
    ends(page)
    summary = page.locator(".bnb-inside summary").first
    summary.click()
    inside = page.locator(".bnb-inside").first
    inside.locator(".bnb-digits canvas").first.wait_for()
    seen = {}
    for picture in inside.get_by_role("slider").all():
        picture.focus()
        page.keyboard.press("Home")
        first = picture.get_attribute("aria-valuetext")
        page.keyboard.press("End")
        seen[picture.get_attribute("aria-label")] = first, picture.get_attribute("aria-valuetext")
    patterns = {
        "Histogram of the channel before the normalisation": r"Values from .* to .*: \d+ of 32 samples\.",
        "Histogram of the channel after the normalisation": r"Values from .* to .*: \d+ of 32 samples\.",
        "Running and batch statistics by channel": r"Channel \d+: mean of the batch .*, running mean .*; standard ",
        "Gradient norms by layer": r"Linear layer \d: gradient norm of the weights [\d.]+, biases",
        "Predictions for test digits": r"This digit is a \d; the network takes it for a \d\. Probabilities: 0: .*",
    }
    assert seen.keys() == patterns.keys()
    for name, texts in seen.items():
        assert texts[0] != texts[1] and all(re.match(patterns[name], text) for text in texts), (name, texts)


def test_a_run_of_the_committed_seeds_is_a_run_of_the_book(visit):
    """At a position of the explorer, with a committed seed: the curve of bnlib, until rounding splits them."""
    page = visit(CHAPTER).page
    box = page.locator("#explorer-training")
    box.get_by_role("button", name="Train here").click()
    box.locator(".bnb-training").wait_for()
    assert box.locator(".bnb-band").count() == 4, "two networks in two charts"
    assert page.url.endswith("training.train.open=1#explorer-training")
    choose(box, seed=0)
    press(box, "Train")
    chart = box.get_by_role("slider", name="training loss (nats) by epoch")
    page.wait_for_function(REACHED, arg=22)
    rows = json.loads((ROOT / "data/results/formula/training_curves_quick.json").read_text())["cells"]
    for norm in ("batch norm", "without normalisation"):
        (row,) = (row for row in rows if (row["norm"], row["batch_size"], row["lr"]) == (norm, 32, 0.1))
        chart.focus()
        for key, point in (("Home", 0), ("ArrowRight", 1)):
            page.keyboard.press(key)
            found = re.search(rf"run \d \({norm}\) (\d+\.\d+)", chart.get_attribute("aria-valuetext"))[1]
            assert float(found) == pytest.approx(row["train_loss"][0][point], rel=6e-3)
    choose(box, batch_size=48)
    page.wait_for_function("!document.querySelector('#explorer-training .bnb-band')")
    choose(box, lr=0.15)
    page.reload()
    box.locator(".bnb-training").wait_for()
    assert box.locator("[data-field=batch_size] input").input_value() == "48"
    assert box.locator("[data-field=lr] input").input_value() == "0.15"
    box.locator(".bnb-controls input[type=range]").first.press("ArrowRight")
    assert box.locator("[data-field=batch_size] input").input_value() == "64"


# For each explorer with committed curves a position, and what its first chart or its second one shows.
POSITIONS = [
    (in_the_page.training_curves, {"batch_size": 256, "lr": 3.0}),
    (in_the_page.labels_per_batch, {"labels": 10, "batch_size": 64, "lr": 0.1}),
    (in_the_page.alphas, {"alpha": "floor 0.03", "construction": "single label", "lr": 0.03}),
    (in_the_page.micro_batches, {"micro_batch_size": 16, "lr": 0.1}),
    (in_the_page.running_statistics, {"lr": 0.1, "momentum": 0.03}),
    (in_the_page.initial_gammas, {"network": "8 layers", "gamma": 0.1}),
    (in_the_page.initial_gammas, {"network": "residual", "gamma": 0.01}),
    (in_the_page.alternatives, {"budget": EQUAL_SAMPLES, "construction": "two labels", "batch_size": 16}),
    (in_the_page.alternatives, {"budget": EQUAL_SAMPLES, "construction": "shuffled", "batch_size": 64}),
]
# With groups of four values or steep activations, rounding splits the runs within an epoch.
ILL_CONDITIONED = ("group norm", "weight standardisation + GN", "EvoNorm-S0", "FRN")
# Trains for three epochs, with a committed seed, all networks that have bands; returns the quantities of the panels.
TRAIN = """
description => new Promise(resolve => {
  const box = document.createElement("div");
  box.dataset.frame = "0";
  document.querySelector("article").append(box);
  const {state, trainer, element} = new bnbTraining.TrainHere(box, description, () => {});
  box.append(element);
  state.chosen = new Set(Object.keys(description.bands[0]));
  state.enter("seed", "0");
  trainer.train();
  const wait = () => {
    if (state.active.some(run => !(run.points.at(-1)?.epoch > 3))) return setTimeout(wait, 50);
    trainer.stop();
    const keys = description.panels.flatMap(panel => panel.lines.map(line => line.key));
    const of = run => run.points.map(point =>
      [point.epoch, Object.fromEntries(keys.map(key => [key, bnbTraining.quantity(point, key)]))]);
    box.remove();
    resolve(Object.fromEntries(state.runs.map(run => [run.name, of(run)])));
  };
  wait();
})
"""


@pytest.mark.parametrize(
    ("training", "position"),
    POSITIONS,
    ids=[f"{training.__name__} {[*position.values()][-2]}" for training, position in POSITIONS],
)
def test_a_committed_seed_begins_inside_the_band(page, training, position):
    """The page's run of a seed that the band contains, before rounding splits the runs: the settings are the same."""
    description = training().description(training.__name__, [position])
    found, (bands,) = page.evaluate(TRAIN, description), description["bands"]
    assert found.keys() == bands.keys()
    compared = dict.fromkeys(found, 0)
    for norm, points in found.items():
        end = 0.5 if norm in ILL_CONDITIONED else 2.5
        for epoch, values in points:
            places = [i for i, at in enumerate(bands[norm]["epoch"]) if abs(at - epoch) < 6e-3 and at < end]
            for key, place in ((key, place) for key in values if key in bands[norm] for place in places):
                low, _, high = (each[place] for each in bands[norm][key])
                # A test image more or less, and the rounding of the band.
                allowed = 0.3 if key.endswith("error") else 0.01 * high
                assert low - allowed <= values[key] <= high + allowed, (norm, key, epoch)
                compared[norm] += 1
    assert all(count for norm, count in compared.items() if norm not in ILL_CONDITIONED), compared


@pytest.mark.parametrize("batch_size", [1, 4, 128])
def test_predictions_in_train_mode_are_those_of_bnlib(visit, batch_size):
    """With a committed seed the whole training ends with the committed errors, in eval mode and in train mode."""
    page = visit(f"{PERILS}?in-use.batch_size={batch_size}&in-use.train.open=1#explorer-in-use").page
    box = page.locator("#explorer-in-use")
    box.locator(".bnb-training").wait_for()
    assert box.locator("[data-field=evaluation_batch_size] input").input_value() == str(batch_size)
    assert box.locator(".bnb-band").count() == 2
    assert "Solid lines: eval mode; dashed lines: train mode" in box.inner_text()
    choose(box, seed=0)
    press(box, "Train")
    (told,) = ends(box)
    row = train_mode_at_inference.load()["fully connected", "shuffled"]
    place = train_mode_at_inference.BATCH_SIZES.index(batch_size)
    expected = [100 - 100 * row["eval_mode"][0], 100 - 100 * row["train_mode"][0, place]]
    # A test image more or less, where rounding splits the runs.
    assert [float(each) for each in re.findall(r"([\d.]+) %", told)] == pytest.approx(expected, abs=0.3)


def test_the_page_says_which_network_of_chapter_6_it_trains(visit):
    box = visit(f"{PERILS}?in-use.network=convolutional&in-use.train.open=1#explorer-in-use").page.locator(
        "#explorer-in-use"
    )
    box.locator(".bnb-training").wait_for()
    assert "This page trains the fully connected network in your browser" in box.inner_text()
    assert box.locator(".bnb-news").text_content().startswith("This page cannot train the network of this position.")
    press(box, "Train")
    assert not box.locator(".bnb-progress").count() and not box.locator(".bnb-band").count()


def test_the_pages_that_offer_training(site):
    for path in sorted(site.rglob("*.html")):
        count = path.read_text().count('<script type="application/json" class="bnb-training-description">')
        expected = WITH_TRAINING | {LABORATORY: 1}
        assert count == expected.get(str(path.relative_to(site)), 0), path
