"""Show the ledger as text in a terminal and as a table in a notebook."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from html import escape

from bnlib.claims.claim import SOURCES, VERDICTS, Judgement, Verdict, median_and_range

MARKS: dict[Verdict, str] = {
    "reproduced": "✓",
    "in part": "◐",
    "not reproduced": "○",
    "wrong": "✗",
    "untestable here": "?",
}
_STYLE = """<style>
.bnb-ledger{width:100%;border-collapse:collapse;text-align:left;display:table}
.bnb-ledger th,.bnb-ledger td{vertical-align:top;padding:.5rem .6rem;border-top:1px solid rgba(128,128,128,.45)}
.bnb-ledger td:first-child{width:42%}
.bnb-ledger p{margin:0 0 .4rem}
html .bd-content div.cell_output .text_html:has(table.bnb-ledger){background:none;color:inherit;padding:0}
html[data-theme=dark] .bd-content div.cell_output .text_html:has(table.bnb-ledger){background:none;color:inherit}
.bnb-ledger ul{margin:.2rem 0 .4rem;padding-left:1.2rem}
.bnb-ledger li{overflow-wrap:anywhere}
.bnb-ledger code{white-space:normal;overflow-wrap:anywhere}
@media (max-width:40rem){
.bnb-ledger thead{display:none}
.bnb-ledger,.bnb-ledger tbody,.bnb-ledger tr,.bnb-ledger td,.bnb-ledger td:first-child{display:block;width:100%}
.bnb-ledger td+td{border-top:0;padding-top:0}}
</style>"""


def verdict_counts(judgements: Sequence[Judgement]) -> dict[Verdict, int]:
    """Count the claims with each verdict.

    Example:
        >>> claims.verdict_counts([claims.judge(claims.CLAIMS["kari-ten-layers"])])
        {'reproduced': 1, 'in part': 0, 'not reproduced': 0, 'wrong': 0, 'untestable here': 0}
    """
    found = Counter(each.verdict for each in judgements)
    return {verdict: found[verdict] for verdict in VERDICTS}


def as_text(judgements: Sequence[Judgement]) -> str:
    """Return one line per claim (verdict, id, statement) and a last line with the counts.

    Example:
        >>> text = claims.as_text([claims.judge(claims.CLAIMS["kari-ten-layers"])])
        >>> print(text.splitlines()[-1])
        1 claims: 1 reproduced, 0 in part, 0 not reproduced, 0 wrong, 0 untestable here
    """
    width = max(len(each.claim.id) for each in judgements)
    lines = [f"{each.verdict:15}  {each.claim.id:{width}}  {each.claim.statement}" for each in judgements]
    found = ", ".join(f"{count} {verdict}" for verdict, count in verdict_counts(judgements).items())
    return "\n".join([*lines, f"{len(judgements)} claims: {found}"])


def report(judgement: Judgement) -> str:
    """Return a claim's verdict, statement, effects and conditions as text of several lines.

    Example:
        >>> print(claims.report(claims.judge(claims.CLAIMS["kari-ten-layers"])))
        kari-ten-layers: reproduced
        With BN about ten layers can be stacked before the noise becomes hard to control.
        (Kari 2018, question)
          roughness, 10 layers: 1
          roughness, 20 layers: 1.68 (1.63 to 2.11)
          roughness, 40 layers: 41.3 (21.2 to 46.5)
          holds: ten layers have a roughness below 1.2 in every seed
          holds: forty have one above 10 in every seed
        measured by depth.descent (scale quick, 3 seeds); see chapters/08_deep_stacks.ipynb
    """
    claim = judgement.claim
    lines = [f"{claim.id}: {judgement.verdict}", claim.statement, f"({SOURCES[claim.source]}, {claim.place})"]
    if claim.untestable_because:
        return "\n".join(map(_wrapped, [*lines, claim.untestable_because]))
    lines += [f"  {name}: {median_and_range(values)}" for name, values in judgement.effects.items()]
    lines += [f"  {'holds' if true else 'fails'}: {words}" for words, true in judgement.holds.items()]
    lines += [claim.note] * bool(claim.note)
    return "\n".join(map(_wrapped, [*lines, f"measured by {_origin(judgement)}; see chapters/{_link(judgement)}"]))


def _wrapped(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(line, 110, subsequent_indent=indent + "  " * bool(indent), break_on_hyphens=False)


def _origin(judgement: Judgement) -> str:
    if not judgement.cells_read:
        return "a computation of seconds"
    names = ", ".join(judgement.experiments)
    return f"{names} (scale {judgement.scale}, {judgement.seeds} seeds)"


def _link(judgement: Judgement) -> str:
    chapter, _, anchor = judgement.claim.chapter.partition("#")
    return f"{chapter}.ipynb" + f"#{anchor}" * bool(anchor)


class Ledger:
    """A table of judgements for a notebook: statement and verdict, conditions, numbers.

    Example:
        >>> claims.Ledger([claims.judge(claims.CLAIMS["kari-ten-layers"])])
        A table of 1 claim: 1 reproduced.
    """

    def __init__(self, judgements: Sequence[Judgement]):
        self.judgements = list(judgements)

    def __repr__(self) -> str:
        found = ", ".join(f"{count} {verdict}" for verdict, count in verdict_counts(self.judgements).items() if count)
        return f"A table of {len(self.judgements)} claim{'s' * (len(self.judgements) != 1)}: {found}."

    def _repr_html_(self) -> str:
        rows = "\n".join(map(_row, self.judgements))
        head = "<thead><tr><th>Claim and verdict</th><th>What we found</th></tr></thead>"
        return f'{_STYLE}<table class="bnb-ledger">{head}<tbody>\n{rows}\n</tbody></table>'


class VerdictTable(Ledger):
    """A short table of judgements for a notebook: one line per claim, linked to its entry in the ledger."""

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="white-space: nowrap">{MARKS[each.verdict]} {each.verdict}</td>'
            f'<td><a href="claims.ipynb#{each.claim.id}">{escape(each.claim.statement)}</a>'
            f" ({escape(SOURCES[each.claim.source])})</td></tr>\n"
            for each in self.judgements
        )
        head = "<thead><tr><th>Verdict</th><th>Claim</th></tr></thead>"
        return f'<div class="bnb-table"><table>{head}<tbody>\n{rows}</tbody></table></div>'


def _row(judgement: Judgement) -> str:
    claim, verdict = judgement.claim, judgement.verdict
    place = escape(f"{SOURCES[claim.source]}, {claim.place}")
    statement = f"<p><strong>{MARKS[verdict]} {verdict}</strong></p><p>{escape(claim.statement)}</p>"
    statement += f"<p><small>{place} · <code>{claim.id}</code></small></p>"
    return f'<tr id="{claim.id}"><td>{statement}</td><td>{_found(judgement)}</td></tr>'


def _found(judgement: Judgement) -> str:
    claim = judgement.claim
    link = f'<a href="{_link(judgement)}">{_chapter(claim.chapter)}</a>'
    if claim.untestable_because:
        return f"<p>{escape(claim.untestable_because)}</p><p><small>See {link}.</small></p>"
    conditions = _list(f"{'holds' if true else 'fails'}: {escape(words)}" for words, true in judgement.holds.items())
    effects = _list(f"{escape(name)}: {median_and_range(values)}" for name, values in judgement.effects.items())
    note = f"<p>{escape(claim.note)}</p>" * bool(claim.note)
    origin = f"<p><small>From {escape(_origin(judgement))}. See {link}.</small></p>"
    numbers = f"<details><summary>Numbers</summary>{effects}</details>"
    return f"{conditions}{note}{numbers}{origin}"


def _list(items) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _chapter(place: str) -> str:
    return f"chapter {int(place[:2])}"
