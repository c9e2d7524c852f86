"""What the training in the page costs a reader, and who can use it: time, memory, bytes, axe, motion, no server."""

import gzip
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import FRONT, PATIENCE, PHONE, SCREEN, SHOWS, resize
from processor_time import HANG, MARKS, traced
from training_page import COVERED, LABORATORY, REACHED, SAYS, choose, ends, press

HIDE = """hidden => {
  Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
# In the worker: the steps of each run.
STEPS = "[...runs.runs.values()].map(run => run.training.steps)"


def test_the_training_waits_while_the_tab_is_hidden(page):
    choose(page, epochs=1000, batch_size=8)
    press(page, "Train")
    page.wait_for_function(SAYS, arg="At step")
    page.evaluate(HIDE, True)
    worker = page.workers[0]
    assert any(worker.evaluate("runs.hidden") or page.wait_for_timeout(50) for _ in range(200))
    assert "waits while this tab is hidden" in page.locator(".bnb-news").text_content()
    before = worker.evaluate(STEPS)
    # Each question takes the worker from one turn to the next, in which it would train.
    assert [worker.evaluate(STEPS) for _ in range(20)] == [before] * 20 and min(before) > 0
    page.evaluate(HIDE, False)
    assert any(worker.evaluate(STEPS) > before or page.wait_for_timeout(50) for _ in range(200))
    assert "goes on" in page.locator(".bnb-news").text_content()
    press(page, "Stop")


# Marks the moment of a press of Train and that of the first point of a curve.
FIRST_POINT = """
() => new Promise(resolve => {
  const point = () => document.querySelector("[aria-label^='training loss'] circle");
  const look = () => point() ? resolve(performance.mark("point")) : requestAnimationFrame(look);
  performance.mark("pressed");
  [...document.querySelectorAll(".bnb-actions button")].find(each => each.textContent === "Train").click();
  look();
})
"""
# In a worker: marks each checkpoint that it reports.
REPORTS = """
() => {
  const post = postMessage;
  globalThis.postMessage = report => {
    if (report.type === "progress") performance.mark("report");
    post(report);
  };
}
"""


def time_to_the_first_point(page) -> float:
    """The processor time of the page from a press of Train to the first point, and of its worker up to its report."""
    page.workers[0].evaluate(REPORTS)
    with traced(page, MARKS) as trace:
        page.evaluate(FIRST_POINT)
    (_, pressed), (_, point) = trace.marks("pressed", "point")
    (_, report), *_ = trace.marks("report")
    print(f"the page {point - pressed:.0f} ms, the worker {report:.0f} ms since it was started")
    return point - pressed + report


def test_the_first_point_comes_soon_on_a_page_that_was_just_opened(visit):
    """The worker starts when the panel opens, not when its first run does."""
    page = visit(FRONT).page
    with page.expect_worker():
        page.locator("#explorer-digits").get_by_role("button", name="Train here").click()
    assert time_to_the_first_point(page) <= 200


def long_tasks(page, act) -> list[float]:
    """The tasks of a page after ``act()``, until it has shown a thousand steps: those above 50 ms of processor time."""
    with traced(page) as trace:
        page.evaluate("performance.mark('begin')")
        act()
        page.wait_for_function(REACHED, arg=1000, timeout=PATIENCE)
    tasks = trace.tasks()
    print(f"{len(tasks)} tasks, the longest {max(tasks):.0f} ms")
    assert len(tasks) > 20
    return [task for task in tasks if task > 50]


@pytest.fixture
def looked_into(page):
    """The laboratory with both networks looked into, to be trained for long."""
    for summary in page.locator(".bnb-inside summary").all():
        summary.click()
    choose(page, epochs=100)
    return page


def test_the_page_stays_responsive_while_it_trains(looked_into):
    assert long_tasks(looked_into, lambda: press(looked_into, "Train")) == []


def test_a_page_that_hangs_is_noticed(looked_into):
    def train_and_hang():
        press(looked_into, "Train")
        looked_into.evaluate(f"() => void setTimeout(() => {{ {HANG} }}, 100)")
        looked_into.wait_for_function("globalThis.hung !== undefined")

    assert long_tasks(looked_into, train_and_hang)


def test_memory_stays_the_same_over_10000_steps(page, browser):
    """Of the processes that show pages and train, without garbage; a step that kept 1 kB would be noticed."""
    choose(page, batch_size=4, width=16, epochs=40)
    press(page, "Train")
    session, sizes = browser.new_browser_cdp_session(), []
    for least in (2000, 12_000):
        page.wait_for_function(REACHED, arg=least, timeout=PATIENCE)
        page.workers[0].evaluate("gc()")
        page.evaluate("gc()")
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        found = [Path(f"/proc/{each['id']}/statm") for each in processes if each["type"] == "renderer"]
        sizes.append(sum(int(path.read_text().split()[1]) * 4096 for path in found))
    print(f"resident after 2,000 and 12,000 steps: {sizes}")
    assert sizes[1] - sizes[0] < 8e6


def test_readers_who_asked_for_less_motion_see_few_pictures(visit):
    page = visit(LABORATORY, reduced_motion="reduce").page
    page.wait_for_selector(".bnb-situations")
    page.evaluate("""() => {
      window.drawn = 0;
      const picture = document.querySelector(".bnb-plot-picture");
      new MutationObserver(() => { window.drawn += 1; }).observe(picture, {childList: true});
    }""")
    choose(page, epochs=8)
    began = page.evaluate("performance.now()")
    press(page, "Train")
    ends(page)
    seconds = (page.evaluate("performance.now()") - began) / 1000
    assert page.evaluate("window.drawn") <= 4 + seconds / 2


# Whether an element is on the screen, as far as the screen's height allows, and has come to rest there.
IN_SIGHT = """selector => {
  const { top, bottom } = document.querySelector(selector).getBoundingClientRect();
  const rests = [selector, top].join() === window.seenLast;
  window.seenLast = [selector, top].join();
  return rests && (top >= 50 && top < innerHeight / 2 || bottom <= innerHeight && top >= 50);
}"""


@pytest.mark.parametrize("screen", [SCREEN, PHONE], ids=["screen", "phone"])
def test_what_a_press_of_a_button_begins_can_be_seen(visit, screen):
    """The panel below an explorer, free of the explorer's controls, and the first chart of a training."""
    page = visit(FRONT, viewport=screen).page
    box = page.locator("#explorer-digits")
    box.get_by_role("button", name="Train here").click()
    box.locator(".bnb-training").wait_for()
    page.wait_for_function(IN_SIGHT, arg="#explorer-digits .bnb-training", polling=200)
    assert box.locator(".bnb-controls").evaluate("controls => getComputedStyle(controls).position") == "static"
    press(box, "Train")
    page.wait_for_function(IN_SIGHT, arg="#explorer-digits .bnb-training .bnb-plot-picture", polling=200)
    page.goto(page.url.partition("index.html")[0] + LABORATORY)
    page.wait_for_selector(".bnb-situations")
    press(page, "Batch size 1")
    page.wait_for_function(IN_SIGHT, arg=".bnb-laboratory .bnb-plot-picture", polling=200)


def test_a_chart_with_two_kinds_of_lines_says_which_is_which(visit):
    page = visit("chapters/06_perils.html").page
    box = page.locator("#explorer-towers")
    box.get_by_role("button", name="Train here").click()
    box.get_by_text("Solid lines: digits; dashed lines: inverted digits").wait_for()


def test_the_results_of_many_runs_leave_the_charts_in_sight_and_their_numbers_legible(visit):
    page = visit("chapters/09_alternatives.html", viewport=PHONE).page
    box = page.locator("#explorer-alternatives")
    box.get_by_role("button", name="Train here").click()
    box.locator(".bnb-training").wait_for()
    for norm in box.locator(".bnb-norms input").all():
        norm.check()
    choose(box, epochs=1)
    press(box, "Train")
    count = len(ends(page))
    assert count == box.locator(".bnb-norms input").count() > 10
    box.get_by_text(f"All {count} runs have ended: see the list below the charts.").wait_for()
    for chart in box.locator(".bnb-plot-picture").all()[:2]:
        numbers = chart.locator("text[font-weight]").all_text_contents()
        assert sorted(map(int, numbers)) == list(range(1, count + 1))
        assert chart.evaluate(COVERED) == []


def test_the_runs_of_two_positions_have_different_names(visit):
    """Each setting that the explorer changes is told, so that the reader can tell its runs apart."""
    page = visit("chapters/06_perils.html").page
    box = page.locator("#explorer-towers")
    box.get_by_role("button", name="Train here").click()
    box.locator(".bnb-training").wait_for()
    for _ in range(2):
        press(box, "Step")
        press(box, "Stop")
        box.locator("input[type=range]").first.press("ArrowLeft")
    page.wait_for_function("document.querySelectorAll('.bnb-run-name').length === 2")
    names = box.locator(".bnb-run-name").all_text_contents()
    assert names[0] != names[1] and all(" from one domain" in name for name in names), names


@pytest.mark.parametrize("missing", ["workers", "scripts"])
def test_without_workers_or_scripts_the_pictures_remain(browser, address, missing):
    with browser.new_context(java_script_enabled=missing != "scripts") as context:
        context.set_default_timeout(PATIENCE)
        context.add_init_script("delete window.Worker")
        page = context.new_page()
        page.goto(address + FRONT)
        assert page.locator("#explorer-digits .bnb-panels > svg").first.is_visible()
        assert page.get_by_role("button", name="Train here").count() == 0
        page.goto(address + LABORATORY)
        assert page.get_by_text("The laboratory trains networks in your browser").is_visible()


FORBIDS_WEBASSEMBLY = (
    "default-src 'self' data:; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; worker-src blob:"
)


@pytest.mark.parametrize(
    ("policy", "told"),
    [(FORBIDS_WEBASSEMBLY, "Finished at step"), ("worker-src 'none'", "The training could not start")],
    ids=["no WebAssembly", "no workers"],
)
def test_under_a_policy_of_the_server_the_page_trains_or_says_why_not(visit, address, policy, told):
    page = visit("404.html").page

    def serve(route):
        answer = route.fetch()
        route.fulfill(response=answer, headers=answer.headers | {"content-security-policy": policy})

    page.route(address + FRONT, serve)
    page.goto(address + FRONT)
    box = page.locator("#explorer-digits")
    box.get_by_role("button", name="Train here").click()
    box.locator(".bnb-training").wait_for()
    choose(box, epochs=1)
    press(box, "Train")
    page.wait_for_function(SAYS, arg=told)
    page.add_script_tag(
        content="try { new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)); compiles = true; }"
        "catch { compiles = false; }"
    )
    assert page.evaluate("compiles") == (policy != FORBIDS_WEBASSEMBLY)


def test_it_trains_on_a_page_that_was_opened_as_a_file(browser, site):
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        complaints = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((site / FRONT).as_uri())
        box = page.locator("#explorer-digits")
        box.get_by_role("button", name="Train here").click()
        box.locator(".bnb-training").wait_for()
        choose(box, epochs=1)
        press(box, "Train")
        assert len(ends(box)) == 2 and complaints == []


def test_workers_come_from_the_site_or_from_its_scripts_only(page):
    blocked = """() => new Promise(resolve => {
      document.addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective), {once: true});
      try { new Worker("data:text/javascript,postMessage(0)").onmessage = () => resolve("allowed"); }
      catch { resolve("refused"); }
    })"""
    press(page, "Step")
    page.wait_for_function(SAYS, arg="at step 1 ")
    assert page.evaluate(blocked) in ("worker-src", "refused")


def test_the_code_is_small_and_is_loaded_when_it_is_asked_for(visit, site, address):
    scripts = [site / "_static" / name for name in ("training.js", "training_engine.js", "training.css")]
    sizes = [len(gzip.compress(path.read_bytes())) for path in scripts]
    digits = re.search(r"const trainingDigits = .*", scripts[1].read_text())[0]
    print(f"{sum(sizes)} bytes compressed, {len(gzip.compress(digits.encode()))} of them digits")
    assert sum(sizes) <= 90_000 and sum(sizes) - len(gzip.compress(digits.encode())) <= 40_000
    visited = visit(FRONT)
    names = [path.name for path in scripts]
    assert not [url for url in visited.requests if any(name in url for name in names)]
    visited.page.locator("#explorer-digits").get_by_role("button", name="Train here").click()
    visited.page.locator("#explorer-digits .bnb-training").wait_for()
    assert all(any(name in url for url in visited.requests) for name in names)
    assert [url for url in visited.requests if not url.startswith((address, "data:", "blob:"))] == []
    assert visited.complaints == []


def test_axe_finds_nothing_to_mend_while_networks_are_looked_into(page):
    choose(page, epochs=1)
    press(page, "Train")
    ends(page)
    for summary in page.locator(".bnb-inside summary").all():
        summary.click()
    page.locator(".bnb-digits canvas").last.wait_for()
    for scheme, screen in {"light": None, "dark": PHONE}.items():
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(SHOWS, arg=scheme)
        if screen:
            resize(page, screen)
            assert page.evaluate("document.documentElement.scrollWidth") <= screen["width"]
        found = Axe().run(page, context=".bnb-laboratory", options={"resultTypes": ["violations"]})
        assert {rule["id"]: [node["html"] for node in rule["nodes"]] for rule in found.response["violations"]} == {}
