"""The training in the page in Firefox: from a server and from a file, by pointer and keyboard, the book's numbers."""

import json
import re

import pytest
from conftest import FRONT, PHONE, ROOT
from processor_time import HANG
from training_page import ENDED, LABORATORY, REACHED, number

from bnlib.widgets import laboratory

CHAPTER = "chapters/01_the_formula.html"
TEXTS = "selector => [...document.querySelectorAll(selector)].map(each => each.textContent)"
COUNT = "selector => document.querySelectorAll(selector).length"
SPOKEN = "() => document.activeElement.getAttribute('aria-valuetext')"
FOCUS = "(selector, at) => document.querySelectorAll(selector)[at].focus()"
# How many formulas are without a width or a height, and the heights of those with a fraction and without.
FORMULAS = """
() => {
  const boxes = [...document.querySelectorAll("article math")].map(each => [each, each.getBoundingClientRect()]);
  const shown = boxes.filter(([each]) => each.checkVisibility());
  const heights = test => shown.filter(([each]) => test(each)).map(([, box]) => box.height);
  return {
    all: shown.length,
    empty: shown.filter(([, box]) => !(box.width > 3 && box.height > 5)).map(([each]) => each.outerHTML),
    lowest: Math.min(...heights(each => each.querySelector("mfrac"))),
    plain: Math.min(...heights(each => !each.querySelector("mfrac"))),
  };
}
"""
# Counts the pictures that the first chart shows.
COUNT_PICTURES = """
() => {
  window.pictures = 0;
  const observer = new MutationObserver(() => { window.pictures += 1; MEANWHILE });
  observer.observe(document.querySelector(".bnb-plot-picture"), { childList: true });
}
"""
# Makes the laboratory again, within reach of a test.
LABORATORY_ANEW = """
() => {
  const place = document.querySelector(".bnb-laboratory-place");
  place.replaceChildren();
  globalThis.testedLaboratory = new bnbTraining.Laboratory(place, Object.values(bnbDescriptions)[0]);
}
"""


def told(tab) -> list[str]:
    return tab.run(TEXTS, ".bnb-progress")


def open_training(tab, box: str):
    tab.click(f"{box} .bnb-actions button", "Train here")
    tab.wait("selector => document.querySelector(selector)", f"{box} .bnb-training")


@pytest.mark.parametrize("where", ["from a server", "from a file"])
def test_the_front_page_trains_on_a_phone(firefox_tab, address, site, where):
    start = address if where == "from a server" else f"{site.as_uri()}/"
    firefox_tab.open(start + FRONT, **PHONE)
    assert not any("training" in url for url in firefox_tab.requests if not url.endswith("train_here.js"))
    open_training(firefox_tab, "#explorer-digits")
    firefox_tab.enter("#explorer-digits [data-field=epochs] input", "1")
    firefox_tab.click("#explorer-digits .bnb-training button", "Train")
    firefox_tab.wait(ENDED)
    runs = told(firefox_tab)
    assert len(runs) == 2 and all(text.startswith("Finished at step") for text in runs)
    assert firefox_tab.run("() => document.documentElement.scrollWidth") <= PHONE["width"]
    assert [url for url in firefox_tab.requests if not url.startswith((start, "data:", "blob:"))] == []
    assert firefox_tab.complaints == []


def test_a_chapter_shows_its_formulas_moves_its_sliders_and_trains_the_book_s_runs(firefox_tab, address):
    firefox_tab.open(address + CHAPTER)
    formulas = firefox_tab.run(FORMULAS)
    assert formulas["all"] > 100 and formulas["empty"] == []
    assert formulas["lowest"] > 1.3 * formulas["plain"], "a fraction has two rows"

    picture = "() => document.querySelector('#explorer-training .bnb-panels').innerHTML"
    before = firefox_tab.run(picture)
    firefox_tab.run(FOCUS, "#explorer-training .bnb-controls input[type=range]", 0)
    firefox_tab.press("ArrowRight")
    assert firefox_tab.run(picture) != before
    firefox_tab.press("ArrowLeft")
    assert firefox_tab.run(picture) == before

    open_training(firefox_tab, "#explorer-training")
    firefox_tab.enter("#explorer-training [data-field=seed] input", "0")
    firefox_tab.click("#explorer-training .bnb-training button", "Train")
    firefox_tab.wait(REACHED, 22)
    rows = json.loads((ROOT / "data/results/formula/training_curves_quick.json").read_text())["cells"]
    firefox_tab.run(FOCUS, "#explorer-training [aria-label='training loss (nats) by epoch']", 0)
    for key, point in (("Home", 0), ("ArrowRight", 1)):
        firefox_tab.press(key)
        spoken = firefox_tab.run(SPOKEN)
        for norm in ("batch norm", "without normalisation"):
            (row,) = (row for row in rows if (row["norm"], row["batch_size"], row["lr"]) == (norm, 32, 0.1))
            found = re.search(rf"run \d \({norm}\) (\d+\.\d+)", spoken)[1]
            assert float(found) == pytest.approx(row["train_loss"][0][point], rel=6e-3)
    firefox_tab.click("#explorer-training .bnb-training button", "Stop")
    assert firefox_tab.complaints == []


@pytest.fixture
def laboratory_tab(firefox_tab, address):
    """The laboratory; nothing there may be complained of."""
    firefox_tab.open(address + LABORATORY)
    firefox_tab.wait("() => document.querySelector('.bnb-situations')")
    yield firefox_tab
    assert firefox_tab.complaints == []


def test_two_networks_train_by_keyboard_as_their_text_promises(laboratory_tab):
    tab = laboratory_tab
    (one_label,) = (each for each in laboratory.SITUATIONS if each.name == "one-label")
    tab.run(FOCUS, ".bnb-situations button", 0)
    tab.press("Tab")
    assert tab.run("() => document.activeElement.textContent") == one_label.title
    tab.press("Enter")
    tab.wait(ENDED)
    errors = [number(text) for text in told(tab)]
    assert errors[0] > 80 and errors[1] < 20
    tab.run(FOCUS, ".bnb-inside summary", 0)
    tab.press("Enter")
    tab.wait("() => document.querySelectorAll('.bnb-digits canvas').length === 10")
    pictures = ".bnb-inside[open] [role=slider], [role=slider][aria-label$='by epoch']"
    spoken = []
    for at in range(tab.run(COUNT, pictures)):
        tab.run(FOCUS, pictures, at)
        tab.press("Home")
        first = tab.run(SPOKEN)
        tab.press("End")
        spoken.append((first, tab.run(SPOKEN)))
    assert len(spoken) == 7, "two charts, and five pictures of the inside"
    assert all(first != last and re.search(r"\d", first) for first, last in spoken), spoken
    assert "situation=one-label" in tab.run("() => location.href")


def work_for_a_picture(tab, count: int, meanwhile: str = "") -> float:
    """The processor time of the page while it trains, in milliseconds for each picture of the first chart."""
    tab.enter("[data-field=epochs] input", "200")
    tab.run(COUNT_PICTURES.replace("MEANWHILE", meanwhile))
    before = tab.firefox.processor_time()
    tab.click(".bnb-actions button", "Train")
    tab.wait(f"() => window.pictures >= {count} || ({ENDED})()")
    time, pictures = tab.firefox.processor_time() - before, tab.run("() => window.pictures")
    tab.click(".bnb-actions button", "Reset training")
    print(f"{pictures} pictures, {time / pictures:.0f} ms for each")
    return time / pictures


def test_the_page_answers_while_it_trains_and_one_that_hangs_is_noticed(laboratory_tab):
    """No task of the page takes longer than all that it does from one picture to the next."""
    assert work_for_a_picture(laboratory_tab, 10) <= 50
    assert work_for_a_picture(laboratory_tab, 2, HANG.replace("4e8", "2e7")) > 50  # slow without a compiler


def test_the_training_waits_in_a_hidden_tab(laboratory_tab):
    """With several checkpoints a second, so that one would come if it did not wait."""
    tab = laboratory_tab
    tab.run(LABORATORY_ANEW)
    tab.enter("[data-field=batch_size] input", "8")
    tab.enter("[data-field=epochs] input", "300")
    tab.click(".bnb-actions button", "Train")
    tab.wait(REACHED, 1)
    other = tab.firefox.tab()
    assert tab.run("() => document.hidden")
    tab.wait("() => document.querySelector('.bnb-news').textContent.includes('waits while this tab is hidden')")
    # What was on its way arrives; then nothing comes for as long as some checkpoints take.
    step = "() => new Promise(resolve => setTimeout(() => resolve(testedLaboratory.state.runs[0].step), 1000))"
    steps = [tab.run(step), tab.run(step)]
    while steps[-1] != steps[-2] and len(steps) < 20:
        steps.append(tab.run(step))
    before = steps[-1]
    assert tab.run(step) == before > 0, steps
    other.command("browsingContext.close")
    tab.wait("before => testedLaboratory.state.runs[0].step > before", before)
    tab.click(".bnb-actions button", "Stop")


def test_workers_come_from_the_site_or_from_its_scripts_only(laboratory_tab):
    blocked = """() => new Promise(resolve => {
      const worker = new Worker("data:text/javascript,postMessage(0)");
      worker.onmessage = () => resolve("allowed");
      worker.onerror = () => resolve("refused");
    })"""
    laboratory_tab.click(".bnb-actions button", "Step")
    laboratory_tab.wait(REACHED, 1)
    assert laboratory_tab.run(blocked) == "refused"
    (told,) = laboratory_tab.complaints
    assert "worker-src" in told
    laboratory_tab.firefox.events.clear()
