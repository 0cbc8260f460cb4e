"""A report as one HTML file: no script, no request to anywhere, readable in print and in the dark.

Promise: everything that comes from a ledger is escaped; the page's own policy forbids scripts and requests, should
anything have got through.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Iterator, Sequence

from ether.reading.plots.svg import DARK, LIGHT, Plot, escape, svg
from ether.reading.plots.svg import STYLE as PLOT_STYLE
from ether.reading.report.content import MOST_PICTURES, MOST_TEXT, Report, ReportTopic
from ether.reading.report.picture import png_of
from ether.version import VERSION

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_COLOURS = f"""
:root{{color-scheme:light dark;--ground:#f4f6f7;--panel:#fff;--ink:#15212b;--ok:#0a7a5c;--bad:#b3300b;{LIGHT}}}
@media (prefers-color-scheme:dark){{
:root{{--ground:#0e1317;--panel:#151b20;--ink:#e3eaef;--ok:#4fcfa5;--bad:#ff8a66;{DARK}}}
}}
"""
_STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:14px/1.45 system-ui,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.7em;font-weight:650;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.2em;font-weight:600;margin:32px 0 12px}
.dim{color:var(--dim)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:12px;margin:16px 0}
.panel{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:12px 16px;overflow-wrap:anywhere}
.panel b{display:block;font-size:1.3em;font-weight:600}
.ok{color:var(--ok)}.bad{color:var(--bad)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:12px}
figure{margin:0;background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:12px}
figcaption{font-weight:600;overflow-wrap:anywhere}
figcaption .dim{font-weight:400}
img{max-width:100%;image-rendering:pixelated;display:block}
.scroll{overflow-x:auto;background:var(--panel);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:6px 12px;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600}
td.n,th.n{text-align:right;white-space:nowrap}
code,pre{font:12px/1.5 ui-monospace,monospace}
pre{overflow-x:auto;margin:8px 0 0;white-space:pre}
details{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:8px 16px;margin:8px 0}
summary{cursor:pointer;overflow-wrap:anywhere}
@media print{body{background:#fff}details{break-inside:avoid}}
"""

_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def html(report: Report) -> str:
    """The whole file."""
    title = f"{report.title}: a report"
    body = "\n".join(_body(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_COLOURS}{_STYLE}{PLOT_STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def span_text(seconds: float) -> str:
    """How long, in its two largest units: `2 h 12 min`; below ten seconds `3.4 s`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in _SPANS:
        number, left = divmod(left, size)
        if number or parts:
            parts.append(f"{number} {unit}")
        if len(parts) == 2:
            break
    return " ".join(parts)


def moment_text(unix_s: float) -> str:
    """A time as local date and time; "" for none. One that no calendar has is told as a number."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(unix_s)) if unix_s else ""
    except (OverflowError, OSError, ValueError):
        return f"{unix_s:g} s"


def _body(report: Report) -> Iterator[str]:
    yield f"<h1>{escape(report.title)}</h1>"
    yield f'<p class="dim">session {escape(report.session)}, {escape(moment_text(report.begin))}</p>'
    if report.simulated:
        yield '<p class="bad">SIMULATED: no hardware was used; values come from a simulated lab.</p>'
    yield f'<div class="facts">{"".join(_facts(report))}</div>'
    if report.state is not None and report.state.metadata:
        said = [(key, str(value)) for key, value in report.state.metadata.items()]
        yield _section("What was said of it", _table(("name", "value"), said))
    if report.trials:
        yield _section("Trials", "".join(_trials(report)))
    for heading, plots in (("Against the conditions", report.against), ("Over time", report.plots)):
        if plots:
            yield _section(heading, f'<div class="plots">{"".join(map(_figure, plots))}</div>')
    for line in report.left_out:
        yield f'<p class="dim">{escape(line)}</p>'
    pictures = [topic for topic in report.topics if topic.picture is not None]
    if pictures:
        shown = "".join(map(_picture, pictures[:MOST_PICTURES]))
        yield _section("Last pictures", f'<div class="plots">{shown}</div>')
    yield _section("What was recorded", _topics(report.topics))
    if report.logs:
        yield _section("Warnings and errors", _logs(report))
    if report.origins:
        yield _section("What made it", _origins(report))
    if report.trees:
        yield _section("Where the last values came from", "".join(_trees(report)))
    if report.texts:
        yield _section("Settings and changes", "".join(_texts(report)))
    yield _made(report)


def _section(heading: str, content: str) -> str:
    return f"<h2>{escape(heading)}</h2>\n{content}"


def _facts(report: Report) -> Iterator[str]:
    state = report.state
    good = report.status in ("ended", "done", "running")
    error = f'<span class="dim">{escape(state.error)}</span>' if state is not None and state.error else ""
    if report.status:
        yield _fact("ok" if good else "bad", report.status, f"after {span_text(report.end - report.begin)} {error}")
    if state is not None and state.planned:
        again = f", {len(state.repeated)} of them more than once" if state.repeated else ""
        so_far = "" if state.complete else " so far"
        yield _fact(
            "ok" if state.all_done else "", f"{len(state.done)} of {state.planned}{so_far}", f"trials done{again}"
        )
    yield _fact("", f"{report.records:,}", f"values on {len(report.topics):,} topics")
    if report.proof:
        first, *rest = report.proof
        durable, _, others = first.partition(", ")
        below = "<br>".join(map(escape, [f"{others}, in the whole ledger", *rest]))
        yield _fact("bad" if rest else "ok", durable, below)


def _fact(kind: str, said: str, below: str) -> str:
    """A panel; `below` is HTML."""
    return f'<div class="panel"><b class="{kind}">{escape(said)}</b>{below}</div>'


def _trials(report: Report) -> Iterator[str]:
    rows = [
        (
            str(row.number), row.condition, row.status if row.within is None else f"{row.status} (in {row.within})",
            str(row.attempts), "" if row.seconds is None else span_text(row.seconds), row.result,
        )
        for row in report.trials
    ]  # fmt: skip
    yield _table(("trial", "condition", "status", "attempts", "took", "result"), rows, numbers=(0, 3, 4))
    if report.trials_left_out:
        yield f'<p class="dim">and {report.trials_left_out:,} more trials</p>'


def _figure(plot: Plot) -> str:
    keys = "".join(
        f'<span class="key s{number % 4}"></span>{escape(line.name)}' for number, line in enumerate(plot.lines)
    )
    notes = f" <span class=dim>{escape('; '.join(plot.notes))}</span>" if plot.notes else ""
    return (
        f"<figure><figcaption>{escape(plot.title)} <span class=dim>{keys if not plot.scatter else ''}</span>{notes}"
        f"</figcaption>{svg(plot)}</figure>"
    )


def _picture(topic: ReportTopic) -> str:
    shape = "×".join(map(str, topic.picture.shape))
    source = base64.b64encode(png_of(topic.picture)).decode()
    return (
        f"<figure><figcaption>{escape(topic.topic)} <span class=dim>{escape(shape)} {escape(str(topic.picture.dtype))},"
        f' stretched</span></figcaption><img alt="the last of {escape(topic.topic)}" '
        f'src="data:image/png;base64,{source}"></figure>'
    )


def _topics(topics: Sequence[ReportTopic]) -> str:
    rows = [
        (
            topic.topic, f"{topic.count:,}", ", ".join(source or "another program" for source in topic.sources),
            moment_text(topic.first), span_text(topic.last - topic.first), topic.last_value,
        )
        for topic in topics
    ]  # fmt: skip
    return _table(("topic", "values", "from", "first", "for", "last value"), rows, numbers=(1,))


def _logs(report: Report) -> str:
    rows = [(moment_text(line.time), line.level, line.source, line.message) for line in report.logs]
    return _table(("time", "level", "from", "message"), rows)


def _origins(report: Report) -> str:
    rows = [
        (
            origin.instance, f"{count:,}", origin.class_path, origin.host,
            f"{origin.revision}{f' ({origin.why_no_commit})' if origin.why_no_commit else ''}",
            ", ".join(f"{name}={value!r}" for name, value in origin.arguments.items()), f"Python {origin.python}",
        )
        for origin, count in report.origins
    ]  # fmt: skip
    return _table(("instance", "values", "class", "machine", "code", "arguments", "with"), rows, numbers=(1,))


def _trees(report: Report) -> Iterator[str]:
    for tree in report.trees:
        yield (
            f"<details><summary>{escape(tree.topic)} <code>{escape(tree.id)}</code></summary>"
            f"<pre>{escape(tree.text)}</pre></details>"
        )


def _texts(report: Report) -> Iterator[str]:
    for kept in report.texts:
        text = "(not in this ledger)" if kept.text is None else kept.text
        cut = f"\n… {len(text) - MOST_TEXT:,} more characters" if len(text) > MOST_TEXT else ""
        yield (
            f"<details><summary>{escape(kept.kind)}: {escape(kept.name)} <code>{escape(kept.sha256[:10])}</code>"
            f"</summary><pre>{escape(text[:MOST_TEXT] + cut)}</pre></details>"
        )


def _made(report: Report) -> str:
    rows = f"rows {report.rows[0]:,} to {report.rows[1]:,} of " if report.records else ""
    return f'<p class="dim">Made by Ether {VERSION} from {rows}{escape(report.ledger)}.</p>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    marks = [' class="n"' if at in numbers else "" for at in range(len(heads))]
    head = "".join(f"<th{mark}>{escape(each)}</th>" for mark, each in zip(marks, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{escape(cell)}</td>" for mark, cell in zip(marks, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
