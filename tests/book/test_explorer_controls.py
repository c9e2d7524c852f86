"""What the controls of explorers promise beside the picture: a page that stands still, links, Reset and Play."""

import pytest
from conftest import EVERY_CHAPTER, FRONT, PHONE

# With one explorer that has a slider alone, with menus and buttons, and with two explorers: each the lightest there is.
PLAYED, CHOICES, SLIDERS = (
    "chapters/01_the_formula.html",
    "chapters/09_alternatives.html",
    "chapters/11_training_code.html",
)

# Puts an explorer at each setting in turn; returns its heights, and which texts leave their panel or overlap the rest.
# Meanwhile the rest of the page is away, so that the browser need not arrange it at each step.
EVERY_SETTING = """
box => {
  const away = [];
  for (let part = box; part !== document.body; part = part.parentElement)
    for (const other of part.parentElement.children)
      if (other !== part) away.push([other, other.style.display]);
  for (const [other] of away) other.style.display = "none";
  const choices = [...box.querySelectorAll("[data-name]")].map(control => {
    const radios = [...control.querySelectorAll("input[type=radio]")];
    if (radios.length) return radios.map(radio => () => { radio.checked = true; });
    const input = control.querySelector("input, select");
    const count = input.options?.length ?? Number(input.max) + 1;
    return [...Array(count).keys()].map(place => () => { input.value = place; });
  });
  const heights = new Set(), tops = new Set(), out = new Set();
  let settings = 0;
  const visit = (rest) => {
    if (rest.length) {
      for (const put of rest[0]) { put(); visit(rest.slice(1)); }
      return;
    }
    box.dispatchEvent(new Event("input"));
    settings += 1;
    heights.add(box.getBoundingClientRect().height);
    for (const panel of box.querySelectorAll(".bnb-panels > svg")) {
      const outer = panel.getBoundingClientRect();
      tops.add(Math.round(outer.top - box.getBoundingClientRect().top));
      for (const text of panel.querySelectorAll("text")) {
        const inner = text.getBoundingClientRect();
        const most = Math.max(outer.left - inner.left, inner.right - outer.right, outer.top - inner.top,
                              inner.bottom - outer.bottom);
        if (most > 3) out.add(`${text.textContent} (${Math.round(most)} px)`);
      }
    }
    for (const part of box.querySelectorAll(".bnb-legend, .bnb-legend > span, .bnb-note"))
      if (part.scrollWidth > part.clientWidth + 1 && part.clientWidth) out.add(part.textContent);
    if (document.documentElement.scrollWidth > innerWidth) out.add("the page scrolls sideways");
  };
  visit(choices);
  for (const [other, display] of away) other.style.display = display;
  const panels = box.querySelectorAll(".bnb-panels > svg").length;
  return {name: box.id, settings, heights: [...heights], tops: [...tops], panels, out: [...out]};
}
"""


@EVERY_CHAPTER
def test_at_every_setting_nothing_is_cut_off_and_the_page_stands_still(narrow):
    for explorer in narrow.page.locator(".bnb-explorer").all():
        found = explorer.evaluate(EVERY_SETTING)
        assert found["settings"] >= 4
        assert len(found["heights"]) == 1 and len(found["tops"]) == found["panels"], found
        assert not found["out"], found
        explorer.get_by_role("button", name="Reset").click()


@EVERY_CHAPTER
def test_on_a_phone_the_controls_stay_in_view_beside_every_panel(narrow):
    narrow.page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    for explorer in narrow.page.locator(".bnb-explorer").all():
        last = explorer.locator(".bnb-panels > svg").last
        last.evaluate("panel => scrollBy(0, panel.getBoundingClientRect().bottom - innerHeight)")
        top, bottom = explorer.locator(".bnb-controls").evaluate(
            "controls => (({top, bottom}) => [top, bottom])(controls.getBoundingClientRect())"
        )
        assert 0 <= top and bottom <= PHONE["height"]


def test_a_page_that_jumps_is_noticed(visit):
    opened = visit(CHOICES, viewport=PHONE).page
    opened.add_style_tag(content=".bnb-note { min-height: 0 !important }")
    heights = [each.evaluate(EVERY_SETTING)["heights"] for each in opened.locator(".bnb-explorer").all()]
    assert max(map(len, heights)) > 1


def state(explorer) -> tuple:
    """What an explorer shows: its values, its note and the name of its picture."""
    chosen = explorer.locator("output, option:checked, :checked + span").all_text_contents()
    picture = explorer.locator(".bnb-panels").get_attribute("aria-label")
    return chosen, explorer.locator(".bnb-note").text_content(), picture


def change_all(opened, explorer):
    """Move each control by one step with the keyboard."""
    for control in explorer.locator("[data-name]").all():
        control.locator("input[type=range], select, input[type=radio]:checked").first.focus()
        opened.keyboard.press("ArrowDown")


@pytest.mark.parametrize("page", [SLIDERS, CHOICES])
def test_a_link_copies_a_setting_and_shows_it_again(visit, page):
    visited = visit(page, permissions=["clipboard-read", "clipboard-write"])
    opened = visited.page
    length = opened.evaluate("history.length")
    first, *_, last = opened.locator(".bnb-explorer").all()
    for explorer in (first, last):
        change_all(opened, explorer)
    opened.wait_for_url(f"**#{last.get_attribute('id')}")
    last.get_by_role("button", name="Copy link").click()
    last.get_by_text("The link to this setting is copied.").wait_for()
    link = opened.evaluate("navigator.clipboard.readText()")
    assert opened.evaluate("history.length") == length, "the back button leaves the page as before"

    # The address has both explorers, the link the one whose button was pressed.
    wanted, other, address = state(last), state(first), opened.url
    opened.goto(link)
    assert state(opened.locator(".bnb-explorer").last) == wanted
    assert state(opened.locator(".bnb-explorer").first) != other
    top = "id => Math.abs(document.getElementById(id).getBoundingClientRect().top)"
    opened.wait_for_function(f"{top} < innerHeight / 2", arg=last.get_attribute("id"))
    opened.goto(address)
    assert state(opened.locator(".bnb-explorer").last) == wanted
    assert state(opened.locator(".bnb-explorer").first) == other
    assert visited.complaints == []


def test_an_address_with_unknown_settings_shows_the_default_and_keeps_its_anchor(visit):
    usual = state(visit(FRONT).page.locator(".bnb-explorer").last)
    opened = visit(f"{FRONT}?digits.lr=7&digits.none=1&other=batch#how-to-cite-it").page
    assert state(opened.locator(".bnb-explorer").last) == usual
    assert opened.url.endswith("?digits.lr=7&digits.none=1&other=batch#how-to-cite-it")


def test_reset_returns_to_the_default(visit):
    opened = visit(CHOICES).page
    for explorer in opened.locator(".bnb-explorer").all():
        before = state(explorer)
        change_all(opened, explorer)
        opened.wait_for_function(
            "id => location.hash === '#' + id && location.search", arg=explorer.get_attribute("id")
        )
        assert state(explorer) != before
        explorer.get_by_role("button", name="Reset").click()
        opened.wait_for_function("!location.search")
        assert state(explorer) == before


def test_play_walks_to_the_end_and_stops_when_the_reader_takes_over(visit):
    opened = visit(PLAYED).page
    opened.clock.install(time=0)
    opened.clock.pause_at(1000)  # from here on, time passes when this test says so
    explorer = opened.locator("#explorer-batch-noise")
    slider, value = explorer.locator("input[type=range]"), explorer.locator("output")
    play, pause = (explorer.get_by_role("button", name=f"{name} batch size") for name in ("Play", "Pause"))
    texts = explorer.evaluate("box => JSON.parse(box.querySelector('script').textContent).texts.batch_size")
    slider.focus()
    opened.keyboard.press("Home")
    play.click()
    assert pause.count() == 1 and explorer.locator(".bnb-note").get_attribute("aria-live") == "off"
    assert value.text_content() == texts[1]
    opened.clock.run_for(1000)
    assert value.text_content() == texts[2]
    slider.focus()
    opened.keyboard.press("ArrowRight")
    assert play.count() == 1
    here = value.text_content()
    opened.clock.run_for(5000)
    assert value.text_content() == here
    assert explorer.locator(".bnb-note").get_attribute("aria-live") == "polite"
    opened.keyboard.press("End")
    opened.keyboard.press("ArrowLeft")
    play.click()
    assert value.text_content() == texts[-1] and play.count() == 1, "it ends at the last value"
    play.click()
    assert value.text_content() == texts[0] and pause.count() == 1, "and begins again from the first"
    pause.click()
    assert play.count() == 1


def test_nothing_plays_for_readers_who_asked_for_less_motion(visit):
    opened = visit(FRONT, reduced_motion="reduce").page
    assert opened.locator(".bnb-play").count() and not any(
        each.is_visible() for each in opened.locator(".bnb-play").all()
    )


def test_the_focus_can_be_seen_on_every_control(visit):
    opened = visit(CHOICES).page
    opened.keyboard.press("Tab")
    for control in opened.locator(".bnb-explorer :is(input, select, button)").all():
        control.focus()
        ring = control.evaluate(
            "input => getComputedStyle(input.type === 'radio' ? input.nextSibling : input).outlineStyle"
        )
        assert ring == "solid"
