"""A trace as one HTML page that needs no server and no network.

The most important parts are in the page as text, for readers without scripts and for searching. The
rest is data, which the page's own script draws. Nothing that an agent, a tool or a model wrote
becomes markup: Python escapes it, and the script sets it as text. The page may load nothing. Its
own script and style are allowed by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

from agentpool._amounts import dollars
from agentpool._checks import expect_arguments
from agentpool.observe._findings import BAD, NOTE, ODD, Finding, findings_of
from agentpool.observe._record import AgentRecord, PoolRecord, record_of
from agentpool.observe._report_data import report_data
from agentpool.observe._trace import Trace

_PAGE: Final = Path(__file__).parent / "_report_page"

LONG_NOTE: Final = 80
"""The most characters of a note below a number. A longer note gets the room of two."""

UNNAMED: Final = "pool"
"""The name of a pool without a name."""

STATIC_ROWS: Final = 200
"""The most agents that are listed for readers without scripts."""


def render_report(trace: Trace) -> str:
    """Render *trace* as an HTML page."""
    expect_arguments(render_report, locals())
    record = record_of(trace.events)
    data, problems = report_data(trace, record)
    style = (_PAGE / "report.css").read_text(encoding="utf-8")
    script = (_PAGE / "report.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    found = findings_of(trace, record)
    found += [Finding(level=NOTE, title="This page", text=text) for text in problems]
    pool = _title(trace, record)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{pool} · agentpool</title>
<style>{style}</style>
</head>
<body>
{_top(trace, record, _verdict(found))}
<main>
{_findings(record, found, has_times=trace.has_times)}
{_SECTIONS}
{_static_table(record, has_times=trace.has_times)}
</main>
<aside id="drawer" hidden aria-label="One agent"></aside>
<div id="tip" role="tooltip" hidden></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


_SECTIONS: Final = """<section id="timeline" hidden aria-labelledby="timeline-title">
<div class="bar"><h2 id="timeline-title">Timeline</h2>
<input id="search" type="search" placeholder="Find in names, queries and texts" aria-label="Find">
<span id="hits" role="status"></span>
<span class="buttons"><button id="out" title="Zoom out (-)">&minus;</button>\
<button id="in" title="Zoom in (+)">+</button><button id="fit" title="All of it (0)">All</button>\
<label><input id="path" type="checkbox"> critical path</label></span></div>
<ul id="legend" class="legend"></ul>
<canvas id="overview" hidden title="All agents. Click to go there."></canvas>
<div id="chart" class="chart" tabindex="0" role="application" \
aria-label="Agents over time. Up and down choose an agent, Enter opens it, left and right move, \
plus and minus zoom, 0 shows all.">\
<canvas id="lanes"></canvas><div id="spacer"></div></div>
</section>
<section id="tables" hidden aria-label="Tables">
<div class="bar"><div id="tabs" role="tablist"></div>\
<input id="filter" type="search" placeholder="Filter" aria-label="Filter the table"></div>
<div class="scroll" id="table"></div>
</section>"""


def _hash(text: str) -> str:
    """Return the hash of an inline script or style for the content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def shown(text: str) -> str:
    r"""Return *text* as HTML, with invisible characters made visible.

    >>> shown("<b>\x1b[2J\u202e")
    '&lt;b&gt;⟨U+001B⟩[2J⟨U+202E⟩'
    """
    return escape("".join(map(_visible, text)))


def _visible(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return f"⟨U+{ord(character):04X}⟩"


def _title(trace: Trace, record: PoolRecord) -> str:
    """Return the name of the pool, or the name of its manifest if the pool has the default name."""
    name = trace.header.pool
    manifests = {agent.spawned.manifest for agent in record.agents.values()}
    if name in {"", UNNAMED} and len(manifests) == 1:
        name = manifests.pop() or name
    return shown(name) or UNNAMED


def _top(trace: Trace, record: PoolRecord, verdict: str) -> str:
    header = trace.header
    pool = _title(trace, record)
    when, took = "read from a journal, which keeps no times", ("time", "?", "")
    if trace.has_times:
        opened_at = datetime.fromtimestamp(header.opened_at, UTC)
        when = f"<time>{opened_at:%Y-%m-%d %H:%M:%S} UTC</time>"
        took = ("time", _seconds(record.seconds), f"{header.max_concurrent:g} slots")
    counts = Counter(agent.status for agent in record.agents.values())
    bill = record.bill
    usage = bill.usage
    calls, broken = len(record.calls), sum(call.is_error for call in record.calls)
    numbers = ((broken, "failed"), (len(record.refused), "refused"))
    unmade = ", ".join(f"{count:,} {what}" for count, what in numbers if count)
    ended = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    cached = f", {usage.cached_tokens:,} of them cached" if usage.cached_tokens else ""
    sent, came = bill.sides_words()
    both = "; ".join((f"{sent} in{cached}", f"{came} out", *bill.tokens_notes()))
    cards = [
        ("agents", f"{len(record.agents):,}", ended),
        took,
        ("tokens", bill.tokens_words(), both),
        ("cost", money(bill.cost_usd), "; ".join(bill.cost_notes())),
        (
            "requests",
            f"{bill.requests:,}",
            f"{bill.failed:,} without an answer" if bill.failed else "",
        ),
        ("tool calls", f"{calls:,}", unmade),
    ]
    tiles = "".join(
        f'<div class="card{" long" * (len(more) > LONG_NOTE)}"><dt>{name}</dt>'
        f'<dd>{value}</dd><dd class="more">{more}</dd></div>'
        for name, value, more in cards
    )
    ran = "".join(f"{shown(words)} · " for words in trace.ran_words())
    return f"""<header class="top {verdict}">
<p class="kind">agentpool trace</p>
<h1>{pool}</h1>
<p class="meta">{ran}{when} · run {shown(header.run_id)}</p>
<dl class="cards">{tiles}</dl>
</header>"""


def _verdict(found: list[Finding]) -> str:
    """Return the colour of the page, set by the worst finding."""
    levels = {finding.level for finding in found}
    return next((level for level in (BAD, ODD) if level in levels), "good")


def _findings(record: PoolRecord, found: list[Finding], *, has_times: bool) -> str:
    if not found:
        return '<section id="findings"><h2>What went wrong</h2><p>Nothing.</p></section>'
    items = "".join(_finding(record, finding, has_times=has_times) for finding in found)
    return (
        f'<section id="findings"><h2>What went wrong</h2>{_kinds(found)}'
        f'<ol class="findings">{items}</ol></section>'
    )


def _kinds(found: list[Finding]) -> str:
    """Return one line with the kinds of findings and how many there are of each."""
    counts = Counter[tuple[str, str]]()
    for finding in sorted(found, key=lambda one: (BAD, ODD, NOTE).index(one.level)):
        counts[finding.level, finding.title] += finding.count
    items = "".join(
        f'<li class="{level}">{escape(title)}{f" ({count:,})" if count > 1 else ""}</li>'
        for (level, title), count in counts.items()
    )
    return f'<ul class="kinds">{items}</ul>'


def _finding(record: PoolRecord, finding: Finding, *, has_times: bool) -> str:
    agent = record.agents.get(finding.agent_id or 0)
    who = ""
    if agent is not None:
        who = f'<a href="#agent={agent.agent_id}">{agent.agent_id} {shown(agent.name)}</a> '
    when, more = "", ""
    if finding.at_seconds is not None and has_times:
        when = f'<span class="when">after {finding.at_seconds:.2f} s</span> '
    if finding.circle:
        waits = ", which waits for ".join(
            f"{agent_id} {shown(record.agents[agent_id].name)}" for agent_id in finding.circle
        )
        numbers = " ".join(map(str, finding.circle))
        more += f'<p class="circle" data-circle="{numbers}">{waits}, which waits for the first</p>'
    if finding.detail:
        more += f"<details><summary>traceback</summary><pre>{shown(finding.detail)}</pre></details>"
    return (
        f'<li class="{finding.level}"><strong>{escape(finding.title)}</strong> {when}{who}'
        f"<span>{shown(finding.text)}</span>{more}</li>"
    )


def _static_table(record: PoolRecord, *, has_times: bool) -> str:
    shown_agents = list(record.agents.values())[:STATIC_ROWS]
    rows = "".join(_static_row(agent, has_times=has_times) for agent in shown_agents)
    left = len(record.agents) - STATIC_ROWS
    more = f"<p>… and {left:,} more agents.</p>" if left > 0 else ""
    head = "".join(
        f"<th>{name}</th>"
        for name in ("agent", "parent", "status", "queued", "ran", "turns", "tokens", "cost")
    )
    return (
        f'<noscript><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{more}</noscript>"
    )


def _static_row(agent: AgentRecord, *, has_times: bool) -> str:
    queued, ran = agent.queued_and_ran
    cells = (
        f"{agent.agent_id} {shown(agent.name)}",
        str(agent.parent_id or ""),
        agent.status,
        _seconds(queued) if has_times else "?",
        _seconds(ran) if has_times else "?",
        f"{agent.turns:,}",
        agent.bill.tokens_words(),
        money(agent.bill.cost_usd),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _seconds(seconds: float) -> str:
    """Return *seconds* as people write durations."""
    if seconds < 60:  # noqa: PLR2004  # a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def money(cost_usd: float | None) -> str:
    """Return US dollars in words. Unknown is not shown as zero."""
    return "?" if cost_usd is None else dollars(cost_usd)
