"""The explorers of problems with data of their own train in the page: by the keyboard, and to the numbers of bnlib."""

import functools
import itertools
import re

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from conftest import PHONE, SHOWS, resize
from training_page import choose, ends, press

from bnlib import mcsgd
from bnlib.experiments.full_normalization import mcsgd_paths
from bnlib.experiments.objective import two_weights
from bnlib.experiments.perils import gan_discriminator

OBJECTIVE = "chapters/04_the_objective.html"
FULL_NORMALIZATION = "chapters/05_full_normalization.html"
PERILS = "chapters/06_perils.html"


def opened(visit, path: str, name: str):
    """The explorer of a page after a press of "Train here", by the keyboard."""
    page = visit(path).page
    box = page.locator(f"#explorer-{name}")
    box.get_by_role("button", name="Train here").focus()
    page.keyboard.press("Enter")
    box.locator(".bnb-training").wait_for()
    return box


def enter(box, **values):
    """Enter values with the keyboard alone; of a menu, by its options' first letters."""
    page = box.page
    for name, value in values.items():
        box.locator(f"[data-field={name}] :is(input, select)").focus()
        if box.locator(f"[data-field={name}] select").count():
            page.keyboard.type(str(value))
        else:
            page.keyboard.press("Control+a")
            page.keyboard.type(str(value))
        page.keyboard.press("Enter")


def press_by_keyboard(box, name: str):
    box.get_by_role("button", name=name, exact=True).focus()
    box.page.keyboard.press("Enter")


# What a picture tells at each of its places. Hundreds of keys of a keyboard would take seconds; some are pressed below.
EVERY_PLACE = """
picture => {
  const press = key => picture.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  const texts = [];
  for (press("Home"); texts.length <= Number(picture.ariaValueMax); press("ArrowRight"))
    texts.push(picture.getAttribute("aria-valuetext"));
  return texts;
}
"""


LAST_PLACE = """([picture, told]) => {
  picture.dispatchEvent(new KeyboardEvent("keydown", {key: "End", bubbles: true, cancelable: true}));
  return picture.getAttribute("aria-valuetext").startsWith(told);
}"""


def read_out(box, label: str) -> list[str]:
    """What the arrow keys tell of a picture, from its first place to its last."""
    picture = box.get_by_role("slider", name=label)
    texts = picture.evaluate(EVERY_PLACE)
    picture.focus()
    for key, text in (("Home", texts[0]), ("ArrowRight", texts[1]), ("End", texts[-1])):
        box.page.keyboard.press(key)
        assert picture.get_attribute("aria-valuetext") == text
    return texts


def as_told(value: float) -> str:
    """A number with three digits, as the page writes it."""
    return f"{float(f'{value:.3g}'):.12g}"


def pair(weights) -> str:
    return f"({', '.join(map(as_told, weights.tolist()))})"


def test_the_two_weights_train_beyond_the_grid_and_end_where_bnlib_ends(visit):
    box = opened(visit, OBJECTIVE, "surface")
    enter(box, construction="one worker", batch_size=5, lr=1.7, steps=40, seed=11)
    press_by_keyboard(box, "Train")
    (told,) = ends(box)
    assert len(box.page.workers) == 1
    batches = two_weights.CONSTRUCTIONS["one worker"](5)
    iterates = two_weights.sgd_iterates(batches, torch.tensor([1.7], dtype=torch.float64), 11)
    path = torch.cat(list(itertools.islice(iterates, 41)))
    losses = two_weights.objective(path, batches)[-1], two_weights.full_batch_objective(path)[-1]
    numbers = [as_told(loss.item()) for loss in losses]
    assert told == f"Finished at step 40 of 40: BN objective {numbers[0]}, full-batch objective {numbers[1]}."
    star, dot, *steps = read_out(box, "path over the two weights")
    best, _ = two_weights.full_batch_minimum()
    own = two_weights.minimiser(lambda weights: two_weights.objective(weights, batches))
    assert star == f"Star: the minimum of the full-batch objective is at the weights {pair(best)}."
    assert dot == f"Dot: the minimum of the BN objective is at {pair(own)}."
    for step, (text, weights) in enumerate(zip(steps, path, strict=True)):
        assert text == f"Run 1 (one worker), step {step}: weights {pair(weights)}."


def test_the_explorer_and_the_training_of_the_two_weights_go_together(visit):
    """A move of the explorer changes the fields; an impossible batch size is told; all runs stay."""
    box = opened(visit, OBJECTIVE, "surface")
    press(box, "Train")
    ends(box)
    choose(box, construction="one label", batch_size=7)
    press(box, "Train")
    told = "“batch size” must be from 1 to 6, the number of samples that a batch of one label can have. It is “7”."
    box.page.wait_for_function("told => document.querySelector('.bnb-news').textContent === told", arg=told)
    choose(box, batch_size=2, lr=50)
    press(box, "Train")
    box.page.wait_for_function("document.querySelectorAll('.bnb-run-name').length === 3")
    assert "surface.train.construction=one+label" in box.page.url and "surface.train.lr=50" in box.page.url
    picture = box.get_by_role("slider", name="path over the two weights").element_handle()
    box.page.wait_for_function(LAST_PLACE, arg=[picture, "Run 3 (one label), step 200:"])
    outside = read_out(box, "path over the two weights")
    assert any("outside the picture" in text for text in outside)


def test_the_parameter_trains_with_any_alpha_and_ends_where_bnlib_ends(visit):
    box = opened(visit, FULL_NORMALIZATION, "composition")
    enter(box, oracle="running", weight=0.45, lr=0.07, steps=50, seed=3)
    press_by_keyboard(box, "Train")
    (told,) = ends(box)
    copies = mcsgd_paths.COPIES
    start = {"w": torch.full((copies,), mcsgd_paths.START, dtype=torch.float64)}
    samples = mcsgd_paths._samples(copies, 3)
    run = mcsgd.minimize(mcsgd_paths.composition(copies), start, samples, 0.07, 0.45, oracle="running")
    (last,) = itertools.islice(run, 49, 50)
    final = last.params["w"].numpy()
    median, low, high = (as_told(value) for value in (np.median(final), final.min(), final.max()))
    assert told == f"Finished at step 50 of 50: median of w over 100 copies {median}, lowest {low}, highest {high}."
    assert f"run 1 (running) {as_told(final[0])}" in read_out(box, "w of one copy by step")[-1]


def test_a_committed_seed_is_inside_the_band_and_the_levels_are_told(visit):
    box = opened(visit, FULL_NORMALIZATION, "composition")
    choose(box, seed=0)
    press(box, "Train")
    ends(box)
    assert box.locator(".bnb-band").count() == 2 and box.locator(".bnb-level").count() == 4
    best, zero = as_told(mcsgd_paths.OPTIMUM), as_told(mcsgd_paths.SAME_ORACLE_ZERO)
    assert f"Lines across: dashed: best w, {best}; dotted: zero of the biased gradient, {zero}" in box.inner_text()
    for text in read_out(box, "w, median of 100 copies by step"):
        found = re.search(r"run 1 \(same batch\) (\S+); same batch in the committed runs (\S+) to (\S+)\.", text)
        value, low, high = map(float, found.groups())
        assert low <= value <= high


def test_a_parameter_that_diverges_is_a_result(visit):
    box = opened(visit, FULL_NORMALIZATION, "composition")
    choose(box, lr=1e8)
    press(box, "Train")
    (told,) = ends(box)
    assert re.match(r"The training diverged: the loss was infinite or not a number at step \d+ of 600", told)


def test_random_labels_are_memorised_with_the_batches(visit):
    """As chapter 4's first figure: with fixed batches, new batches cost half of the labels, without BN none."""
    box = opened(visit, OBJECTIVE, "evaluation")
    choose(box, digit_labels="random", batches="the same in every epoch", seed=0, epochs=25)
    press(box, "Train")
    found = [[float(number) for number in re.findall(r"([\d.]+) %", text)] for text in ends(box)]
    (train, reshuffled, evaluation, test), plain = found
    assert train < 15 and reshuffled > 45 and 34 < evaluation < reshuffled and test > 80
    assert plain[1] == pytest.approx(plain[2], abs=1) and plain[0] == pytest.approx(plain[1], abs=8)


def test_alpha_follows_the_explorer(visit):
    box = opened(visit, FULL_NORMALIZATION, "alpha")
    assert box.locator("[data-field=floor] input").input_value() == "0.03"
    box.locator(".bnb-controls select").first.select_option(label="(k/20 + 1)⁻⁰·⁴, as in figure 4 of the paper")
    assert box.locator("[data-field=alpha] select").input_value() == "(k/20 + 1)⁻⁰·⁴"
    assert box.locator("[data-field=floor]").is_hidden() and box.locator(".bnb-band").count() == 2
    choose(box, alpha="constant", weight=0.9, epochs=1)
    press(box, "Train")
    batch_norm, full_norm = ends(box)
    assert "α = 0.9" in box.locator(".bnb-run-name").last.text_content()
    for text in (batch_norm, full_norm):  # one label in a batch, and hardly any memory
        assert float(re.search(r"test error ([\d.]+) %", text)[1]) > 20


def test_discriminators_train_beyond_the_grid_and_end_where_bnlib_ends(visit):
    box = opened(visit, PERILS, "discriminator")
    enter(box, kind="scaled", batches="mixed", lr=0.1, width=32, steps=60, seed=11)
    press_by_keyboard(box, "Train")
    told = ends(box)
    assert len(told) == 2
    for norm, text in zip(("batch norm", "batch norm, layer 2 only"), told, strict=True):
        model, generator = gan_discriminator.network(norm, 11, width=32), torch.Generator().manual_seed(11)
        draw = functools.partial(gan_discriminator.pair, "scaled", generator)
        steps = gan_discriminator.training(model, draw, "mixed", lr=0.1)
        losses = [loss.item() for loss in itertools.islice(steps, 60)]
        new = functools.partial(gan_discriminator.pair, "scaled", torch.Generator().manual_seed(12))
        expected = gan_discriminator.accuracies_on(model, new)
        found = re.fullmatch(
            r"Finished at step 60 of 60: training loss (\S+), train mode, separate batches (\S+) %, "
            r"train mode, mixed batches (\S+) %, eval mode (\S+) %\.",
            text,
        )
        loss, *accuracies = map(float, found.groups())
        assert loss == pytest.approx(np.mean(losses[-2:]), rel=1e-2)
        assert accuracies == pytest.approx([100 * each for each in expected.values()], abs=0.3)


def test_the_discriminator_follows_the_explorer(visit):
    """In separate batches, BN in both layers learns nothing, and BN in layer 2 only judges the batch."""
    box = opened(visit, PERILS, "discriminator")
    box.locator(".bnb-controls").get_by_role("radio", name="mixed").check()
    assert box.locator("[data-field=batches] select").input_value() == "mixed"
    choose(box, batches="separate", steps=400)
    press(box, "Train")
    both, second = ends(box)
    accuracy = [float(re.search(r"train mode, separate batches (\S+) %", text)[1]) for text in (both, second)]
    assert accuracy[0] < 60 and accuracy[1] > 80
    assert "steps 400" in box.locator(".bnb-run-name").first.text_content()
    assert box.locator(".bnb-level").count() == 1


# Takes away what stands beside an explorer and is no heading, and the parts of its picture: axe walks through a page.
ALONE = """
box => {
  box.querySelectorAll(".bnb-panels > *").forEach(part => part.remove());
  for (let part = box; !part.matches("article"); part = part.parentElement)
    for (const other of [...part.parentElement.children])
      if (other !== part && !other.matches("h1, h2, h3")) other.remove();
}
"""


@pytest.mark.parametrize(
    ("path", "name"),
    [(OBJECTIVE, "surface"), (FULL_NORMALIZATION, "composition"), (PERILS, "discriminator")],
)
def test_axe_finds_nothing_to_mend(visit, path, name):
    box = opened(visit, path, name)
    page = box.page
    press(box, "Train")
    ends(box)
    box.evaluate(ALONE)
    for scheme, screen in {"light": None, "dark": PHONE}.items():
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(SHOWS, arg=scheme)
        if screen:
            resize(page, screen)
            assert page.evaluate("document.documentElement.scrollWidth") <= screen["width"]
        found = Axe().run(page, context=f"#explorer-{name}", options={"resultTypes": ["violations"]})
        assert {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found.response["violations"]} == {}
