# SPDX-License-Identifier: GPL-2.0-only
"""`vcs status`: everything at a glance, and what will happen if something is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from vcs.cli.common import NOT_RUNNING, Asked, common
from vcs.cli.render import clean, duration, emit_facts, emit_json, emit_note, ranges

if TYPE_CHECKING:
    from vcs.report import StatusReport

CONSEQUENCES = {
    "lost": "The provider is LOST: every group here is stopped and gets no new cluster lock. The other nodes count this node as failed "
    "and fence it; its groups do not come back before that. Remedy: let it be fenced, or reboot it.",
    "orphan": "The provider's process is gone and the groups wait for the next. The other nodes wait for it for a few seconds, then "
    "this node has failed and they fence it. Remedy: start vcsd now.",
    "none": "Nobody provides membership for this cluster. Remedy: start vcsd.",
}
STUCK = (
    "The kernel still holds a provider, but no vcsd answers on its socket. "
    "Remedy: look at `systemctl status vcsd`, or give its --run-dir."
)


@click.command("status")
@common
def status_(asked: Asked) -> None:
    """The cluster as this node sees it: provider, view, quorum, lease, fencing."""
    report, note = asked.status()
    if asked.as_json:
        emit_json("status", report, note)
        return
    emit_note(note)
    emit_facts(_facts(report, note))
    notes = [*report.get("notes", []), *_consequence(report, note)]
    if notes:
        click.echo()
    for text in notes:
        click.echo(clean(str(text)))


def _facts(report: StatusReport, note: str) -> Iterator[tuple[str, str]]:
    r: Mapping[str, Any] = report
    handle = f" (handle {r['handle']})" if r.get("handle") not in ("", r.get("cluster")) else ""
    yield "cluster", f"{r.get('cluster', '?')}{handle}"
    yield "node", f"{r['node']} ({r['nodeid']})" if r.get("node") else str(r.get("nodeid", "?"))
    yield "vcsd", _daemon(r, note)
    provider = r.get("provider") or {}
    yield "provider", f"{provider.get('type') or 'none'}, {provider.get('state') or 'none'}"
    if m := r.get("maintenance"):
        reason = f" ({m['reason']})" if m.get("reason") else ""
        yield "MAINTENANCE", f"nobody is fenced, no machine resets itself, for another {duration(m.get('left_ms')) or '?'}{reason}"
    yield "view", _view(r.get("view") or {})
    if q := r.get("quorum"):
        flags = f" ({', '.join(q['flags'])})" if q.get("flags") else ""
        yield "quorum", f"{q.get('votes')} of {q.get('expected')} votes, {q.get('needed')} needed{flags}"
    if lease := r.get("lease"):
        yield "lease", _lease(lease)
    if engine := r.get("engine"):
        yield "engine", ", ".join(f"{k} {v}" for k, v in engine.items() if isinstance(v, str | int | float))
    yield "groups", str(r.get("groups", 0))
    for fence in r.get("fencing", []):
        detail = f": {fence['detail']}" if fence.get("detail") else ""
        waiting = f" (groups that wait: {', '.join(fence['groups'])})" if fence.get("groups") else ""
        yield "fencing", f"{fence.get('name') or 'node'} ({fence.get('nodeid')}), {fence.get('state')}{detail}{waiting}"


def _daemon(r: Mapping[str, Any], note: str) -> str:
    if r.get("source") == "kernel":
        return "NOT RUNNING" if note == NOT_RUNNING else "not asked"
    daemon = r.get("daemon") or {}
    since = duration(daemon.get("uptime_ms"))
    return f"running, pid {daemon.get('pid', '?')}" + (f", for {since}" if since else "")


def _view(view: Mapping[str, Any]) -> str:
    if not view.get("generation"):
        return "none yet"
    quorate = "quorate" if view.get("quorate") else "NOT quorate"
    return f"{view['generation']}, ring {view.get('ring')}, {quorate}, members {ranges(view.get('members') or []) or 'none'}"


def _lease(lease: Mapping[str, Any]) -> str:
    left = lease.get("remaining_ms") or 0
    return f"{lease.get('lease_ms')} ms, " + (f"{left} ms left" if left > 0 else "not running")


def _consequence(report: StatusReport, note: str) -> list[str]:
    """What follows from the provider's state, said plainly."""
    state = report.get("provider", {}).get("state", "")
    if state in CONSEQUENCES:
        return [CONSEQUENCES[state]]
    return [STUCK] if note == NOT_RUNNING else []
