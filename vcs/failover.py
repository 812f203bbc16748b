# SPDX-License-Identifier: GPL-2.0-only
"""The shape of a failover's timeline (filled by bridge/failover.py), and how it is shown: as text and as SVG. Pure.

Times are milliseconds since the first sign of trouble, by the clock of the node that is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NotRequired, TypedDict


class FenceTry(TypedDict):
    by: int
    "Nodeid of who tried."
    launched_ms: float
    ended_ms: float | None
    ok: bool
    method: str
    how: str


class Victim(TypedDict):
    nodeid: int
    incarnation: str
    why: str
    "Why it counts as failed."
    sign: str
    "The first sign of it, in the engine's words; empty when there was none."
    detected_ms: float
    tries: list[FenceTry]
    fenced_ms: NotRequired[float]


class GroupTimes(TypedDict):
    name: str
    level: int
    id: str
    "Of the last event: a further failure replaces it."
    members: list[int]
    events: NotRequired[int]
    stopping_ms: NotRequired[float]
    stopped_ms: NotRequired[float]
    last_stop: NotRequired[int]
    "Nodeid of who stopped last."
    started_ms: NotRequired[float]
    recovered_ms: NotRequired[float]
    last_start: NotRequired[int]
    finished_ms: NotRequired[float]
    "Told to this node's kernel; absent where the node is not in the group."


class Failover(TypedDict):
    number: int
    "Counted by this node."
    wall_ns: int
    "CLOCK_REALTIME of the first sign."
    rings: list[str]
    "The configurations on the way, the first of which left the victims out."
    members: list[int]
    victims: list[Victim]
    groups: list[GroupTimes]
    configured_ms: float | None
    view_ms: float | None
    done_ms: float
    complete: bool


Names = Callable[[int], str]
Row = tuple[float | None, str, str]
"When, what, and how long since what it waited for."


def _fence_rows(victim: Victim, names: Names) -> Iterator[Row]:
    who = names(victim["nodeid"])
    for one in victim["tries"]:
        by = f" by {names(one['by'])}" if one["by"] else ""
        if one["ended_ms"] is None:
            yield one["launched_ms"], f"{who}: fence begun{by}", ""
            continue
        took = one["ended_ms"] - one["launched_ms"]
        result = "fenced" if one["ok"] else "fence failed"
        method = f", {one['method']}" if one["method"] else ""
        yield one["ended_ms"], f"{who}: {result}{by}{method}: {one['how']}", f"took {_ms(took)}" if took else ""


def _group_rows(group: GroupTimes, names: Names, fenced_ms: float | None) -> Iterator[Row]:
    def last(key: str) -> str:
        found = group.get(key)
        return f" (last: {names(found)})" if isinstance(found, int) else ""

    begin, stopped, started = group.get("stopping_ms"), group.get("stopped_ms"), group.get("started_ms")
    recovered, finished = group.get("recovered_ms"), group.get("finished_ms")
    yield begin, f"{group['name']}: stop ordered", ""
    if stopped is not None:
        yield stopped, f"{group['name']}: all stopped{last('last_stop')}", _since(stopped, begin)
    if started is not None:
        waited = max((t for t in (stopped, fenced_ms) if t is not None and t <= started), default=None)
        yield started, f"{group['name']}: started", _since(started, waited)
    if recovered is not None:
        yield recovered, f"{group['name']}: all recovered{last('last_start')}", _since(recovered, started)
    if finished is not None:
        yield finished, f"{group['name']}: finished here", _since(finished, recovered)


def rows(failover: Failover, names: Names) -> list[Row]:
    """The whole timeline in order of time."""
    found: list[Row] = []
    for victim in failover["victims"]:
        sign = victim["sign"] or victim["why"]
        found.append((victim["detected_ms"], f"{names(victim['nodeid'])}: detected: {sign}", ""))
        found += _fence_rows(victim, names)
    if failover["configured_ms"] is not None:
        found.append((failover["configured_ms"], f"configuration {failover['rings'][-1]} agreed", ""))
    if failover["view_ms"] is not None:
        found.append((failover["view_ms"], f"view installed: {', '.join(map(names, failover['members']))}", ""))
    fenced = max((v["fenced_ms"] for v in failover["victims"] if "fenced_ms" in v), default=None)
    for group in failover["groups"]:
        found += _group_rows(group, names, fenced)
    return sorted(found, key=lambda row: row[0] if row[0] is not None else 0.0)


def _ms(value: float) -> str:
    return f"{value / 1000:.2f} s" if value >= 10_000 else f"{value:.1f} ms"


def _since(at: float, before: float | None) -> str:
    return f"after {_ms(at - before)}" if before is not None else ""


def text(failover: Failover, names: Names) -> list[str]:
    """The timeline as lines."""
    lines = [f"{'+' + _ms(at or 0.0):>12}  {what}{f'  ({took})' if took else ''}" for at, what, took in rows(failover, names)]
    if not failover["complete"]:
        lines.append("              (it is not over: see `vcs why`)")
    return lines


# --- SVG ----------------------------------------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, LANE, TOP = 960, 190, 30, 30, 70
COLOURS = {"detect": "#7a7a7a", "form": "#5b8ff9", "stop": "#f6bd16", "wait": "#d9d9d9", "fence": "#e8684a", "failed": "#b23b2a",
           "recover": "#5ad8a6", "finish": "#2f9e6b"}  # fmt: skip
LEGEND = (("detect", "detected"), ("form", "view"), ("stop", "stopping"), ("fence", "fencing"), ("failed", "failed fence"),
          ("wait", "waiting"), ("recover", "recovering"))  # fmt: skip
Bar = tuple[float, float, str, str]
"From, to (ms), colour, what it is."


def _lanes(failover: Failover, names: Names) -> list[tuple[str, list[Bar]]]:
    lanes: list[tuple[str, list[Bar]]] = []
    end = failover["configured_ms"]
    if end is not None:
        bars: list[Bar] = [(0.0, end, "detect", "detected, and agreed on who is left")]
        if failover["view_ms"] is not None:
            bars.append((end, failover["view_ms"], "form", "view installed"))
        lanes.append(("membership", bars))
    for victim in failover["victims"]:
        bars = [(one["launched_ms"], one["ended_ms"] if one["ended_ms"] is not None else failover["done_ms"],
                 "fence" if one["ok"] else "failed", one["how"]) for one in victim["tries"]]  # fmt: skip
        lanes.append((f"fence {names(victim['nodeid'])}", bars))
    for group in failover["groups"]:
        marks = [group.get(key) for key in ("stopping_ms", "stopped_ms", "started_ms", "recovered_ms", "finished_ms")]
        kinds = (("stop", "stopping"), ("wait", "waiting for fences and lower levels"), ("recover", "recovering"), ("finish", "finish"))
        bars = []
        for (begin, finish), (colour, what) in zip(zip(marks, marks[1:], strict=False), kinds, strict=True):
            if isinstance(begin, float) and isinstance(finish, float):
                bars.append((begin, finish, colour, what))
        lanes.append((group["name"], bars))
    return lanes


def _step(span: float) -> float:
    """A round distance of the marks on the axis, so that there are five to ten."""
    step = 1.0
    for factor in (2.0, 2.5, 2.0) * 8:
        if span / step <= 10:
            break
        step *= factor
    return step


def svg(failover: Failover, names: Names, title: str) -> str:
    """A picture for a browser: one lane for the membership, each fence and each group."""
    lanes = _lanes(failover, names)
    span = max([failover["done_ms"], failover["view_ms"] or 0.0, *(b[1] for _, bars in lanes for b in bars), 1.0])
    scale = (WIDTH - LEFT - RIGHT) / span
    height = TOP + LANE * len(lanes) + 50
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="10" y="22" font-size="15">{_clean(title)}</text>',
    ]
    x = 10
    for kind, what in LEGEND:
        out.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{COLOURS[kind]}"/><text x="{x + 17}" y="46">{what}</text>')
        x += 30 + 8 * len(what)
    bottom, step = TOP + LANE * len(lanes), _step(span)
    for i in range(int(span / step) + 1):
        at = LEFT + i * step * scale
        out.append(f'<line x1="{at:.1f}" y1="{TOP - 8}" x2="{at:.1f}" y2="{bottom}" stroke="#eee"/>'
                   f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{_axis(i * step)}</text>')
    for row, (name, bars) in enumerate(lanes):
        y = TOP + LANE * row
        out.append(f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{_clean(name)}</text>')
        for begin, end, kind, what in bars:
            width = max((end - begin) * scale, 1.0)
            out.append(f'<rect x="{LEFT + begin * scale:.1f}" y="{y}" width="{width:.1f}" height="{LANE - 10}" fill="{COLOURS[kind]}">'
                       f"<title>{_clean(what)}: {_ms(begin)} to {_ms(end)}, {_ms(end - begin)}</title></rect>")
    out.append(f'<text x="{LEFT}" y="{bottom + 38}">milliseconds since the first sign; all over after {_ms(failover["done_ms"])}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _axis(ms: float) -> str:
    return f"{ms:g}" if ms < 10_000 else f"{ms / 1000:g} s"


def _clean(value: str) -> str:
    from xml.sax.saxutils import escape  # an HTTP client comes with it; vcsd only fills the timeline, and does not draw it

    return escape("".join(c if c.isprintable() else "?" for c in value), {'"': "&quot;"})


def valid(value: object) -> bool:
    """Is this a failover as we write them? (What a file of an older version holds may be anything.)"""
    return isinstance(value, Mapping) and isinstance(value.get("number"), int) and all(
        isinstance(value.get(key), list) for key in ("rings", "members", "victims", "groups"))
