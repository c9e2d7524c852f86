"""Every control of each page moved by keyboard in Chromium, with no kernel, and what a screen reader is told."""

import collections
import itertools

import pytest
from conftest import CHAPTERS, PATIENCE, WITH_SLIDERS
from processor_time import MARKS, traced

# Keeps, for each step of a slider: what was to be seen in the frame after, and whether the drawing is another one than
# before. Marks the key press and the frame.
WATCH = """
() => {
  window.steps = [];
  let before;
  addEventListener("keydown", () => performance.mark("pressed"), true);
  addEventListener("input", ({target: slider}) => requestAnimationFrame(() => setTimeout(() => {
    performance.mark("shown");
    const box = slider.closest(".bnb-explorer");
    const drawing = [...box.querySelectorAll(".bnb-panels > svg")].map(svg => svg.innerHTML).join();
    window.steps.push({
      redrawn: drawing !== before,
      note: box.querySelector(".bnb-note").innerText,
      told: slider.getAttribute("aria-valuetext") ?? slider.selectedOptions?.[0].text ?? slider.nextSibling.innerText,
      texts: [...box.querySelectorAll("output, option:checked, :checked + span")].map(shown => shown.textContent),
    });
    before = drawing;
    dispatchEvent(new Event("step"));
  })));
}
"""
# Waits until so many steps were seen.
SEEN = """
count => new Promise(seen => {
  const check = () => {
    if (window.steps.length < count) return;
    removeEventListener("step", check);
    seen();
  };
  addEventListener("step", check);
  check();
})
"""


@WITH_SLIDERS
def test_every_control_moves_its_picture_by_keyboard_within_100_ms(visited):
    opened = visited.page
    opened.evaluate(WATCH)
    with traced(opened, MARKS) as trace:
        for control in opened.locator("[data-name]").all():
            walk(opened, control)
    waits = [shown - pressed for (_, pressed), (_, shown) in steps_of(trace.marks("pressed", "shown"))]
    assert len(waits) >= 3
    late, median = sorted(waits)[int(0.95 * len(waits))], sorted(waits)[len(waits) // 2]
    print(f"{opened.url}: {len(waits)} steps, median {median:.0f} ms, longest {max(waits):.0f} ms")
    assert late < 100, "five in a hundred steps take longer, in processor time"
    # Last, because a browser that keeps an accessibility tree is slower.
    check_what_a_screen_reader_is_told(opened)


def steps_of(marks: list) -> list[tuple]:
    """Each frame that was marked, with the key press before it."""
    return [(before, after) for before, after in itertools.pairwise(marks) if (before[0], after[0]) == STEP]


STEP = "pressed", "shown"
TEXTS = """
control => JSON.parse(control.closest(".bnb-explorer").querySelector("script").textContent).texts[control.dataset.name]
"""
RESET = "control => control.closest('.bnb-explorer').querySelector('.bnb-actions button').click()"


def walk(opened, control):
    """Move a control through all its values by keyboard and reset it."""
    texts = control.evaluate(TEXTS)
    input = control.locator("input:not([type=radio]), select, input[type=radio]:checked").first
    input.focus()
    if input.get_attribute("type") == "radio":
        to_first = ["ArrowRight"] * (len(texts) - control.locator("input:checked").evaluate("each => +each.value"))
    else:
        to_first = ["End", "Home"]
    step_key = "ArrowDown" if control.locator("select").count() else "ArrowRight"
    for key in to_first:
        opened.keyboard.press(key)
    opened.evaluate("new Promise(shown => requestAnimationFrame(() => setTimeout(shown)))")
    opened.evaluate("window.steps = window.steps.slice(-1)")
    for position in range(1, len(texts)):
        opened.keyboard.press(step_key)
        opened.evaluate(SEEN, position + 1)
    steps = opened.evaluate("window.steps")
    control.evaluate(RESET)
    assert [step["told"] for step in steps] == texts
    for before, after in itertools.pairwise(steps):
        assert after["redrawn"], f"the drawing stays at {after['told']}"
        assert after["note"] != before["note"], f"the note stays at {after['told']}"
        assert after["told"] in after["texts"]


# Moves every control through some of its values, and collects what live regions then say.
DRAG = """
async () => {
  const said = [];
  for (const note of document.querySelectorAll("[aria-live], output:not([aria-hidden])"))
    new MutationObserver(() => note.ariaLive !== "off" && said.push(note.textContent)).observe(note, {childList: true});
  for (const input of document.querySelectorAll(".bnb-slider input, .bnb-choice select, .bnb-choice input"))
    for (const place of [input.max, 0, input.max - 1]) {
      if (input.type === "radio") input.checked = true;
      else input.value = place || 0;
      input.dispatchEvent(new Event("input", {bubbles: true}));
    }
  const rested = () => [...document.querySelectorAll(".bnb-note")].every(note => note.ariaLive === "polite");
  while (!rested()) await new Promise(resolve => setTimeout(resolve, 50));
  await new Promise(requestAnimationFrame);
  return said;
}
"""


def check_what_a_screen_reader_is_told(opened):
    """In the browser's accessibility tree: each control and its value, the picture's name, and the note, once."""
    said = opened.evaluate(DRAG)
    assert sorted(said) == sorted(opened.locator(".bnb-note").all_text_contents())
    nodes = accessible(opened)
    names = {"slider": ".bnb-slider label", "combobox": ".bnb-choice > label", "radio": ".bnb-buttons span"}
    for role, name in names.items():
        assert [node["name"]["value"] for node in nodes[role]] == opened.locator(name).all_text_contents()
        states = [{each["name"]: each["value"].get("value") for each in node["properties"]} for node in nodes[role]]
        assert all(state.get("focusable") and not state.get("disabled") for state in states)
    legends = opened.locator(".bnb-choice > legend").all_text_contents()
    assert set(legends) <= {node["name"]["value"] for node in nodes["group"]}
    # Not in this tree, which has the number of the position: the value in words.
    inputs, texts = opened.locator(".bnb-slider input").all(), opened.locator(".bnb-slider output")
    assert [each.get_attribute("aria-valuetext") for each in inputs] == texts.all_text_contents()
    told = [node["name"]["value"] for node in nodes["image"]]
    for explorer in opened.locator(".bnb-explorer").all():
        name = explorer.locator(".bnb-panels").get_attribute("aria-label")
        assert name in told
        chosen = explorer.locator("output, option:checked, :checked + span").all_text_contents()
        assert len(chosen) == explorer.locator("[data-name]").count() and all(text in name for text in chosen)


def accessible(opened) -> dict[str, list[dict]]:
    """The nodes of all explorers in the browser's accessibility tree, by role."""
    browser = opened.context.new_cdp_session(opened)
    root = browser.send("DOM.getDocument")["root"]["nodeId"]
    found = collections.defaultdict(list)
    for explorer in browser.send("DOM.querySelectorAll", {"nodeId": root, "selector": ".bnb-explorer"})["nodeIds"]:
        for node in browser.send("Accessibility.queryAXTree", {"nodeId": explorer})["nodes"]:
            if not node["ignored"]:
                found[node["role"]["value"]].append(node)
    browser.send("Accessibility.disable")  # to keep the tree costs the tests that follow on this page much time
    browser.detach()
    return found


def test_a_control_that_does_not_move_its_picture_is_noticed(browser, address, site):
    script = (site / "_static" / "explorer.js").read_text()
    dead = script.replace("this.stage.innerHTML = picture", "void picture")
    assert dead != script
    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE)
        context.route("**/explorer.js*", lambda route: route.fulfill(body=dead, content_type="text/javascript"))
        opened = context.new_page()
        opened.goto(address + CHAPTERS[-1])
        opened.evaluate(WATCH)
        with pytest.raises(AssertionError, match="drawing"):
            walk(opened, opened.locator("[data-name]").first)
