"""Show the ledger as text in a terminal and as a table in a notebook."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from html import escape

from bnlib.claims.claim import SOURCES, Judgement, median_and_range
from bnlib.claims.rule import OPEN_VERDICTS, VERDICTS, Quantifier, Verdict

MARKS: dict[Verdict, str] = {
    "reproduced": "✓",
    "in part": "◐",
    "not reproduced": "○",
    "wrong": "✗",
    "stand-in only": "≈",
    "not tested here": "–",
    "untestable here": "?",
}
ABOUT: dict[Quantifier, str] = {
    "always": "about every case",
    "sometimes": "about what can happen",
    "tendency": "about a comparison or tendency",
}
"""What a claim says, in the words of the tables."""
_STYLE = """<style>
.bnb-ledger{width:100%;border-collapse:collapse;text-align:left;display:table}
.bnb-ledger th,.bnb-ledger td{vertical-align:top;padding:.5rem .6rem;border-top:1px solid rgba(128,128,128,.45)}
.bnb-ledger td:first-child{width:42%;border-left:.3rem solid transparent}
.bnb-ledger [data-verdict=reproduced] td:first-child{border-left-color:#3a9d5d}
.bnb-ledger [data-verdict="in part"] td:first-child{border-left-color:#d9a520}
.bnb-ledger [data-verdict="not reproduced"] td:first-child,
.bnb-ledger [data-verdict=wrong] td:first-child{border-left-color:#cf4b3f}
.bnb-ledger p{margin:0 0 .4rem}
html .bd-content div.cell_output .text_html:has(table.bnb-ledger){background:none;color:inherit;padding:0}
html[data-theme=dark] .bd-content div.cell_output .text_html:has(table.bnb-ledger){background:none;color:inherit}
.bnb-ledger ul{margin:.2rem 0 .4rem;padding-left:1.2rem}
.bnb-ledger li{overflow-wrap:anywhere}
.bnb-ledger code{white-space:normal;overflow-wrap:anywhere}
@media (max-width:40rem){
.bnb-ledger thead{display:none}
.bnb-ledger,.bnb-ledger tbody,.bnb-ledger tr,.bnb-ledger td,.bnb-ledger td:first-child{display:block;width:100%}
.bnb-ledger tr[hidden]{display:none}
.bnb-ledger td+td{border-top:0;padding-top:0}}
</style>"""


def verdict_counts(judgements: Sequence[Judgement]) -> dict[Verdict, int]:
    """Count the claims with each verdict; claims that are open, such as those tested on a stand-in, do not count.

    Example:
        >>> claims.verdict_counts([claims.judge(claims.CLAIMS["yang-linear"])])
        {'reproduced': 1, 'in part': 0, 'not reproduced': 0, 'wrong': 0}
    """
    found = Counter(each.verdict for each in judgements)
    return {verdict: found[verdict] for verdict in VERDICTS}


def open_counts(judgements: Sequence[Judgement]) -> dict[Verdict, int]:
    """Count the claims that are open, by what leaves them open.

    Example:
        >>> claims.open_counts([claims.judge(claims.CLAIMS["lian-converges"])])
        {'stand-in only': 0, 'not tested here': 0, 'untestable here': 1}
    """
    found = Counter(each.verdict for each in judgements)
    return {verdict: found[verdict] for verdict in OPEN_VERDICTS}


def as_text(judgements: Sequence[Judgement]) -> str:
    r"""Return one line per claim (verdict, id, statement) and two lines with the counts.

    Example:
        >>> text = claims.as_text([claims.judge(claims.CLAIMS["yang-linear"])])
        >>> print(*text.splitlines()[-2:], sep="\n")
        1 claims have a verdict: 1 reproduced, 0 in part, 0 not reproduced, 0 wrong
        0 are open: 0 stand-in only, 0 not tested here, 0 untestable here
    """
    width = max(len(each.claim.id) for each in judgements)
    lines = [f"{each.verdict:15}  {each.claim.id:{width}}  {each.claim.statement}" for each in judgements]
    for title, counts in (
        ("claims have a verdict", verdict_counts(judgements)),
        ("are open", open_counts(judgements)),
    ):
        found = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        lines.append(f"{sum(counts.values())} {title}: {found}")
    return "\n".join(lines)


def report(judgement: Judgement) -> str:
    """Return a claim's verdict, statement, effects and conditions as text of several lines.

    Example:
        >>> print(claims.report(claims.judge(claims.CLAIMS["cooijmans-gamma"])))
        cooijmans-gamma: stand-in only
        In networks with tanh and BN, a small initial gamma such as 0.1 helps the gradient to pass through the layers.
        (Cooijmans et al. 2017, section 4; about a comparison or tendency)
        Tested on feed-forward stacks in place of recurrent networks, so the claim has no verdict.
          growth per layer, tanh: 1.1 (1.1 to 1.11)
          growth per layer, tanh, gamma 0.1: 1.01
          holds: with 100 layers, tanh and gamma 0.1, the gradient grows by less than 2 % per layer
          holds: with 100 layers, tanh and gamma 1, the gradient grows by more than 5 % per layer
        In the recurrent networks of the paper, gradients vanish rather than explode.
        measured by depth.gradient_growth (scale quick, 3 seeds); see
        chapters/08_deep_stacks.ipynb#exercise-1-a-gamma-that-does-nothing
    """
    claim = judgement.claim
    place = f"({SOURCES[claim.source]}, {claim.place}; {ABOUT[claim.quantifier]})"
    lines = [f"{claim.id}: {judgement.verdict}", claim.statement, place]
    if claim.reason:
        return "\n".join(map(_wrapped, [*lines, claim.reason]))
    lines += [_stand_in(judgement)] * bool(claim.stand_in)
    lines += [f"  {name}: {median_and_range(values)}" for name, values in judgement.effects.items()]
    lines += [f"  {'holds' if true else 'fails'}: {words}" for words, true in judgement.holds.items()]
    lines += [claim.note] * bool(claim.note)
    return "\n".join(map(_wrapped, [*lines, f"measured by {_origin(judgement)}; see chapters/{_link(judgement)}"]))


def _stand_in(judgement: Judgement) -> str:
    return f"Tested on {judgement.claim.stand_in}, so the claim has no verdict."


def _wrapped(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(line, 110, subsequent_indent=indent + "  " * bool(indent), break_on_hyphens=False)


def _origin(judgement: Judgement) -> str:
    if judgement.claim.exact_because:
        return f"one computation, because {judgement.claim.exact_because}"
    if not judgement.cells_read:
        return f"a computation of seconds, {judgement.seeds} seeds"
    names = ", ".join(judgement.experiments)
    return f"{names} (scale {judgement.scale}, {judgement.seeds} seeds)"


def _link(judgement: Judgement) -> str:
    chapter, _, anchor = judgement.claim.chapter.partition("#")
    return f"{chapter}.ipynb" + f"#{anchor}" * bool(anchor)


class Ledger:
    """A table of judgements for a notebook: statement and verdict, conditions, numbers.

    Example:
        >>> claims.Ledger([claims.judge(claims.CLAIMS["yang-linear"])])
        A table of 1 claim: 1 reproduced.
    """

    def __init__(self, judgements: Sequence[Judgement]):
        self.judgements = list(judgements)

    def __repr__(self) -> str:
        counts = verdict_counts(self.judgements) | open_counts(self.judgements)
        found = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        return f"A table of {len(self.judgements)} claim{'s' * (len(self.judgements) != 1)}: {found}."

    def _repr_html_(self) -> str:
        rows = "\n".join(map(_row, self.judgements))
        head = "<thead><tr><th>Claim and verdict</th><th>What we found</th></tr></thead>"
        return f'{_STYLE}<table class="bnb-ledger">{head}<tbody>\n{rows}\n</tbody></table>'


class VerdictTable(Ledger):
    """A short table of verdicts for a notebook: one line per claim, linked to its entry in the ledger.

    Claims that are open, such as those tested on a stand-in only, are left out.
    """

    def __init__(self, judgements: Sequence[Judgement]):
        super().__init__([each for each in judgements if each.verdict in VERDICTS])

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
    """Return a row of the ledger; its data attributes are what ``assets/ledger.js`` filters by."""
    claim, verdict = judgement.claim, judgement.verdict
    place = escape(f"{SOURCES[claim.source]}, {claim.place}")
    statement = f"<p><strong>{MARKS[verdict]} {verdict}</strong></p><p>{escape(claim.statement)}</p>"
    statement += f"<p><small>{place} · {ABOUT[claim.quantifier]} · <code>{claim.id}</code></small></p>"
    keys = {"verdict": verdict, "source": SOURCES[claim.source], "chapter": _chapter(claim.chapter)}
    data = "".join(f' data-{name}="{escape(value)}"' for name, value in keys.items())
    return f'<tr id="{claim.id}"{data}><td>{statement}</td><td>{_found(judgement)}</td></tr>'


def _found(judgement: Judgement) -> str:
    claim = judgement.claim
    link = f'<a href="{_link(judgement)}">{_chapter(claim.chapter)}</a>'
    if claim.reason:
        return f"<p>{escape(claim.reason)}</p><p><small>See {link}.</small></p>"
    stand_in = f"<p>{escape(_stand_in(judgement))}</p>" * bool(claim.stand_in)
    conditions = _list(f"{'holds' if true else 'fails'}: {escape(words)}" for words, true in judgement.holds.items())
    effects = _list(f"{escape(name)}: {median_and_range(values)}" for name, values in judgement.effects.items())
    note = f"<p>{escape(claim.note)}</p>" * bool(claim.note)
    origin = f"<p><small>From {escape(_origin(judgement))}. See {link}.</small></p>"
    numbers = f"<details><summary>Numbers</summary>{effects}</details>"
    return f"{stand_in}{conditions}{note}{numbers}{origin}"


def _list(items) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _chapter(place: str) -> str:
    return f"chapter {int(place[:2])}"
