"""The symptom table: from what one sees to the cause, the test, the cure and the section."""

from __future__ import annotations

from bnlib.doctor.advice import ADVICE, Advice
from bnlib.doctor.causes_without_a_finding import CAUSES_WITHOUT_A_FINDING, IN_TRAINING_CODE
from bnlib.doctor.headings import heading

SYMPTOM_GROUPS: dict[str, str] = {
    "error": "The loss is NaN, or training raises an error",
    "eval": "Good in train mode, bad in eval mode",
    "batch": "Predictions depend on the batch",
    "training": "Training is slow, stuck or erratic",
    "after": "Worse after loading, exporting or fine-tuning",
    "devices": "Several devices",
}
"""What one sees first: the headings of the symptom table by the key of the group."""

TEST_SETUP = """\
model = copy.deepcopy(model)  # some of the tests change the mode or the statistics
bns = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
x, y = next(iter(batches))
F.cross_entropy(model(x), y).backward()
scores = losses_by_mode(model, batches)
loss = {mode: score.losses.mean() for mode, score in scores.items()}
"""
"""The code that defines the names in the tests, from ``model`` and ``batches``."""


def all_advice() -> dict[str, Advice]:
    """Return the advice for each finding by its code, and for each cause without a finding by a short name.

    Example:
        >>> doctor.all_advice()["zero-gamma"].section
        'chapters/07_why_is_my_bn_failing.ipynb#gamma-is-zero'
    """
    return {**ADVICE, **CAUSES_WITHOUT_A_FINDING, **IN_TRAINING_CODE}


def symptom_rows(group: str) -> list[dict[str, str]]:
    """Return the rows of the symptom table for one group, for ``tables.CaseTable``.

    Arguments:
        group: a key of ``SYMPTOM_GROUPS``.

    Raises:
        ValueError: there is no such group.

    Example:
        >>> (row,) = (row for row in doctor.symptom_rows("training") if "`zero-gamma`" in row["how to tell"])
        >>> row["likely cause"]
        'Gamma and beta of a layer in front of a ReLU are 0.'
        >>> print(row["how to tell"])
        `any(not bn.weight.grad.any() for bn in bns)`
        The doctor reports `zero-gamma`.
    """
    if group not in SYMPTOM_GROUPS:
        raise ValueError(f"group must be one of {', '.join(SYMPTOM_GROUPS)}, got {group!r}")
    return [_row(name, each) for name, each in all_advice().items() if each.group == group]


def _row(name: str, advice: Advice) -> dict[str, str]:
    doctor = f"\nThe doctor reports `{name}`." if name in ADVICE else ""
    return {
        "what you see": advice.symptom,
        "likely cause": advice.cause,
        "how to tell": f"`{advice.test}`{doctor}",
        "cure": f"{advice.remedy} {_link(advice.section)}",
    }


def _link(section: str) -> str:
    """Return a link, in Markdown, from a notebook in the same folder."""
    page = section.rpartition("/")[2]
    return f"[Chapter {int(page[:2])}, “{heading(section)}”]({page})"
