"""How tests train networks in a page: they enter settings, press buttons, and wait for what the legend says."""

import re

from conftest import PATIENCE

LABORATORY = "chapters/laboratory.html"
ENDED = """
() => {
  const runs = [...document.querySelectorAll(".bnb-progress")].map(each => each.textContent);
  return runs.length && runs.every(text => /^(Finished|The training diverged)/.test(text));
}
"""
# Whether the first run has reached a step.
REACHED = "least => Number(document.querySelector('.bnb-progress')?.textContent.match(/step (\\d+)/)?.[1]) >= least"
# Whether the first run of the legend says something.
SAYS = "words => document.querySelector('.bnb-progress')?.textContent.includes(words)"
# Pairs of texts of a picture that cover one another, with more than the margins of their letters.
COVERED = """
picture => {
  const texts = [...picture.querySelectorAll("text[font-weight]")];
  const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([name, one], i) => boxes.slice(i + 1)
    .filter(([, other]) => one.left < other.right && other.left < one.right)
    .filter(([, other]) => Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 5)
    .map(([other]) => [name, other]));
}
"""


def press(page, name: str):
    page.get_by_role("button", name=name, exact=True).click()


def choose(page, **values):
    """Enter values into the fields of the laboratory or of an explorer's training."""
    for name, value in values.items():
        field = page.locator(f"[data-field={name}] :is(input, select)").first
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(str(value))
        else:
            field.fill(str(value))
            field.press("Enter")


def ends(page) -> list[str]:
    """What the legend says when all runs have ended."""
    page.wait_for_function(ENDED, timeout=PATIENCE)
    return page.locator(".bnb-progress").all_text_contents()


def number(text: str, what: str = "test error") -> float:
    return float(re.search(rf"{what} ([\d.]+)", text)[1])
