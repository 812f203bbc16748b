# SPDX-License-Identifier: GPL-2.0-only
"""`vcs ring`: what the engine knows of its ring, and why the last configuration changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import clean, duration, emit_facts, emit_json, emit_table, ranges

MATRIX_MAX = 16
"With more nodes the claims are listed, not drawn."

Report = Mapping[str, Any]


@click.command("ring")
@click.option("--changes", "-n", type=click.IntRange(1), default=1, show_default=True, help="Tell why for the last N configurations.")
@common
def ring_(asked: Asked, changes: int) -> None:
    """The engine's ring as this node sees it: members, links with loss and round trips, tokens, who cannot reach whom, and why the
    configuration changed. Only vcsd knows this."""
    with asked.client() as client:
        report = client.ring()
        names = {n["nodeid"]: n["name"] for n in [*client.nodes(), *report.get("peers", [])] if n.get("name")}
    if asked.as_json:
        emit_json("ring", report)
        return
    emit_facts(_facts(report, names))
    if peers := report.get("peers"):
        click.echo()
        emit_table(("NODE", "STATE", "LINK", "", "ROUND TRIP", "LOSS", "HEARD"), _rows(peers, names), "")
    for line in _apart(report, names):
        click.echo(clean(line))
    for change in (report.get("changes") or [])[-changes:]:
        click.echo()
        for line in _change(change):
            click.echo(clean(line))


def label(nodeid: object, names: Mapping[int, str]) -> str:
    name = names.get(nodeid) if isinstance(nodeid, int) else None
    return f"{name} ({nodeid})" if name else f"node {nodeid}"


def _facts(r: Report, names: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    yield "engine", f"{r.get('engine')}, {r.get('state')}"
    forming = f"; {r['forming']} is being formed" if r.get("forming") else ""
    yield "ring", f"{r.get('ring')}, members {ranges(r.get('members') or []) or 'none'}{forming}"
    if token := r.get("token"):
        yield "token", _token(token, names)
    if traffic := r.get("traffic"):
        yield "order", (
            f"{traffic['ordered']} frames in this ring, {traffic['delivered']} delivered, {traffic['queued']} messages wait; "
            f"{traffic['repaired']} frames were repaired for others since the start"
        )
        yield "frames", f"up to {traffic['frame_max']} bytes"
    if (drops := r.get("drops")) is not None:
        yield "dropped", ", ".join(f"{n} {k.removeprefix('dropped_').replace('_', ' ')}" for k, n in drops.items()) or "nothing"
    if channels := r.get("channels"):
        yield "channels", ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in sorted(channels.items()))
    if down := r.get("links_down"):
        yield "DOWN", f"this node's own end of link {ranges(down)}"


def _token(token: Mapping[str, Any], names: Mapping[int, str]) -> str:
    where = "rests here" if token.get("resting_here") else f"rests at {label(token.get('rests_at'), names)} when nobody speaks"
    rotation = token.get("rotation_us")
    took = f", goes round in {_us(rotation)} when somebody does" if rotation else ""
    return f"{where}{took}; sent again {token.get('retransmits')} times"


def _rows(peers: Sequence[Report], names: Mapping[int, str]) -> Iterator[tuple[object, ...]]:
    for peer in peers:
        for i, link in enumerate(peer.get("links") or [{}]):
            used = "*" if link.get("link") == peer.get("link") and len(peer["links"]) > 1 else ""
            yield (
                label(peer.get("nodeid"), names) if i == 0 else "",
                _state(peer) if i == 0 else "",
                f"{link.get('link', '-')}{used}",
                link.get("state", "-"),
                _us(link.get("rtt_us")),
                f"{link['loss_percent']} %" if link.get("loss_percent") is not None else "-",
                f"{duration(link['heard_ms_ago'])} ago" if link.get("heard_ms_ago") is not None else "never",
            )


def _state(peer: Report) -> str:
    if peer.get("owes_ms", 0) >= 50:
        return f"{'member' if peer.get('member') else 'outside'}, silent for {duration(peer['owes_ms'])}"
    if peer.get("member"):
        return "member"
    if peer.get("kept_outside"):
        return "kept outside"
    return "outside" if peer.get("known") else "not heard"


def _us(us: object) -> str:
    if not isinstance(us, int | float):
        return "-"
    return f"{us:.0f} us" if us < 10_000 else f"{us / 1000:.0f} ms"


def _apart(r: Report, names: Mapping[int, str]) -> list[str]:
    """Who has no round trip with whom: drawn for a few nodes, listed for many."""
    claims = {(a, b) for a, b in r.get("claims") or []}
    if not claims:
        return []
    nodes = sorted({r["local"], *(p["nodeid"] for p in r.get("peers") or [])})
    members = set(r.get("members") or [])
    if len(nodes) > MATRIX_MAX:
        return ["", *(f"{label(a, names)} has no round trip with {label(b, names)}" for a, b in sorted(claims))]
    width = max(len(str(n)) for n in nodes)
    out = ["", "round trips, as far as this node knows (+ yes, X no by the row's word, x no by the column's, ? unknown):"]
    out.append(" " * (width + 2) + " ".join(str(n).rjust(width) for n in nodes))
    for a in nodes:
        cells = [_cell(a, b, claims, members) for b in nodes]
        out.append(f"{a:>{width + 1}} " + " ".join(c.rjust(width) for c in cells))
    return out


def _cell(a: int, b: int, claims: set[tuple[int, int]], members: set[int]) -> str:
    if a == b:
        return "."
    if (a, b) in claims:
        return "X"
    if (b, a) in claims:
        return "x"
    return "+" if a in members and b in members else "?"


def _change(change: Report) -> Iterator[str]:
    took = f", {change['took_ms']:.1f} ms after the first doubt" if change.get("took_ms") else ""
    yield f"ring {change.get('ring')} since {change.get('time')}{took}, members {ranges(change.get('members') or [])}:"
    for sentence in change.get("why") or []:
        yield f"  {sentence}"
