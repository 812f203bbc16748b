# SPDX-License-Identifier: GPL-2.0-only
"""What is waited for, on whom, how long already, until when, and what helps: `vcs why`. Pure; reads, never changes.

Each source looks at the coordinator and returns :class:`Wait` objects, most general first. Another part of the coordinator that makes
people wait adds its own function to :data:`SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.coordinator import detached, groups, methods
from bridge.coordinator.state import FAILED, LAUNCHED, RETRY, GroupRec, Obligation
from vcs.model import GroupState, Phase, event_text

if TYPE_CHECKING:
    from bridge.coordinator.core import Coordinator

MS: Final = 1_000_000
LOCKSPACE: Final = "dlm:"
OFF: Final = "if you know that it is off"


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that waits."""

    what: str
    "Its kind: engine, merge, quorum, fence, group, maintenance..."
    text: str
    waits_for: str = ""
    on: tuple[object, ...] = ()
    "Nodeids, or names of groups."
    remedy: str = ""
    "A command; empty when waiting is all there is to do."
    condition: str = ""
    "When the remedy may be used."
    group: str = ""
    event: int = 0
    since_ns: int = 0
    "By the clock of the inputs; 0: not known."
    limit_ns: int = 0
    "When it ends by itself; 0: never."

    def row(self, now_ns: int) -> dict[str, object]:
        """JSON-able."""
        found: dict[str, object] = {
            "what": self.what, "group": self.group, "event": self.event, "waits_for": self.waits_for, "on": list(self.on),
            "text": self.text, "remedy": self.remedy, "condition": self.condition,
        }
        if self.since_ns:
            found["since_ms"] = max(now_ns - self.since_ns, 0) // MS
        if self.limit_ns:
            found["limit_ms"] = max(self.limit_ns - now_ns, 0) // MS
        return found


Source = Callable[["Coordinator", int], Iterable[Wait]]


def of(c: Coordinator, now_ns: int) -> list[Wait]:
    """Everything that is waited for. Empty: nothing is."""
    return [wait for source in SOURCES for wait in source(c, now_ns)]


# --- words --------------------------------------------------------------------------------------------------------------------


def names(c: Coordinator, nodeids: Iterable[int]) -> str:
    texts = []
    for nodeid in nodeids:
        node = c.config.node(nodeid)
        texts.append(f"{node.name} (node {nodeid})" if node else f"node {nodeid}")
    return ", ".join(texts)


def subject(group: str) -> str:
    """How people call the group."""
    return f"lockspace {group.removeprefix(LOCKSPACE)}" if group.startswith(LOCKSPACE) else f"group {group}"


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def seconds(ns: int) -> str:
    """A length of time, rounded up: what is promised is over by then."""
    ms = -(-max(ns, 0) // MS)
    return f"{ms} ms" if ms < 1000 else f"{-(-ms // 1000)} s"


# --- sources ------------------------------------------------------------------------------------------------------------------


def membership(c: Coordinator, now_ns: int) -> list[Wait]:
    """The component that this node is in: formed, merged, quorate."""
    mode = c.mode.value
    if mode == "start":
        return [Wait("engine", "the membership engine has not delivered a configuration yet", "configuration")]
    if not c.regular:
        return [Wait("engine", "the membership is changing: a new configuration is being formed", "configuration")]
    if mode == "collect":
        if c.feed.switch is None:
            return [Wait("switch", "the local switch has not been read yet", "switch", (c.local.nodeid,))]
        absent = sorted({m.nodeid for m in c.members} - set(c.present))
        odd = "".join(f"; {names(c, [n])} cannot be understood: {c.foreign[n]}" for n in absent if n in c.foreign)
        return [Wait("merge", f"waiting for {names(c, absent)} to say what they bring into ring {c.ring}{odd}", "exchange", (*absent,))]
    if mode == "snapshot":
        return [Wait("merge", "the cluster's state is on its way to those who lack it", "snapshot")]
    if mode == "waiting":
        absent = sorted({n.id for n in c.config.nodes} - {m.nodeid for m in c.members} - c.acked - c.off)
        return [Wait("waiting_for_all", f"cold start: waiting until {names(c, absent)} has been seen", "nodes", (*absent,),
                     f"vcs fence ack {absent[0] if absent else 'NODE'}", OFF)]
    if mode == "inquorate":
        absent = sorted({n.id for n in c.config.nodes} - {m.nodeid for m in c.members})
        text = (
            f"no quorum: {c.votes.present} of {c.votes.expected} votes are here and {c.votes.needed} are needed; "
            f"not here: {names(c, absent) or 'nobody'}"
        )
        if c.witness.half:
            return [_witness(c, absent)]
        return [Wait("quorum", text, "votes", (*absent,), "start vcsd there, or find out why they cannot be reached")]
    return []


def _witness(c: Coordinator, absent: list[int]) -> Wait:
    """Half of the votes are here."""
    held, w = c.config.quorum.witness, c.witness
    assert held is not None
    where = f"the witness at {held.address} port {held.port}"
    answer = w.answer if w.answered_ns >= c.now_ns - held.timeout_ms * MS // 4 else None  # it was asked several times since then
    said = answer.verdict if answer is not None else ""
    remedy = ""
    if not said:
        why, remedy = f"{where} does not answer", f"start vcs-witness there, or find out why {held.address} cannot be reached"
    elif answer is not None and said == "held":
        why = f"{where} has let the other half go on (ring {answer.holder})"
    elif answer is not None and said in ("wait", "starting"):
        why = f"{where} decides in {seconds(answer.left_ms * MS)}" + (": it has just been started" if said == "starting" else "")
    elif said in ("granted", "noted"):
        why = f"the word of {where} is on its way to all members"
    else:
        why, remedy = f"{where} refuses: {said}", "make [quorum.witness] alike on all nodes and there"
    text = f"no quorum: exactly half of the votes are here, so a witness decides, and {why}; not here: {names(c, absent)}"
    return Wait("quorum", text, "witness", (*absent,), remedy)


def grant(c: Coordinator, now_ns: int) -> list[Wait]:
    """A member whose own time is over, while the others may go on."""
    if c.mode.value != "primary" or not c.regular or c.witness.holds(max(now_ns, c.now_ns)):
        return []
    return [_witness(c, sorted({n.id for n in c.config.nodes} - {m.nodeid for m in c.members}))]


def own_failure(c: Coordinator, now_ns: int) -> list[Wait]:
    me = c.state.nodes.get(c.local.nodeid)
    if c.mode.value != "primary" or me is None or me.status != FAILED:
        return []
    text = "this node has failed: what it ran outlived its membership, and it gets no start; it must be reset or fenced"
    return [Wait("failed", text, "fence", (c.local.nodeid,), "reboot it", "if nobody fences it")]


def maintenance(c: Coordinator, now_ns: int) -> list[Wait]:
    held = c.state.maintenance
    if held is None or not c.state.obligations:
        return []
    return [Wait("maintenance", f"maintenance freezes fencing{_until(c, held.serial, now_ns)}{f': {held.reason}' if held.reason else ''}",
                 "maintenance", (held.by,), "vcs maintenance off", "if what it was for is done")]


def _until(c: Coordinator, serial: int, now_ns: int) -> str:
    left = c.feed.left_ms(serial, now_ns)
    return f" for another {seconds(left * MS)}" if left else ""


def away(c: Coordinator, now_ns: int) -> list[Wait]:
    """Daemons that are away while their machines live (SAFETY S16)."""
    found = []
    for (nodeid, _boot, _times), since in sorted(c.feed.clocks.away.gone.items()):
        planned = c.state.absences[nodeid].planned_ms if nodeid in c.state.absences else 0
        limit = planned or detached.limit_ms(c.config)
        how = "announced its restart" if planned else "died"
        text = f"the daemon of {names(c, [nodeid])} {how}, its machine lives; back within {limit / 1000:g} s, or it is failed and fenced"
        found.append(Wait("detached", text, "daemon", (nodeid,), "systemctl start vcsd", "on that node", since_ns=since,
                          limit_ns=since + limit * MS))
    return found if c.mode.value == "primary" else []


def fences(c: Coordinator, now_ns: int) -> list[Wait]:
    if c.mode.value != "primary":
        return []
    return [
        Wait("fence", f"{names(c, [o.nodeid])} must be fenced: {fence_text(c, o, now_ns)}", "fence", (o.nodeid,),
             "" if o.phase == LAUNCHED and not o.attempt else f"vcs fence ack {o.nodeid}", OFF,
             since_ns=c.feed.leases.since.get(o.key, 0), limit_ns=c.feed.leases.at.get(o.key, 0))
        for _, o in sorted(c.state.obligations.items())
    ]


def fence_text(c: Coordinator, o: Obligation, now_ns: int) -> str:
    """What was tried on ``o``, and what comes next."""
    index, _pause = methods.of(c.config, o.nodeid, o.attempt, o.cut)
    failed = ", ".join(f"method {m} failed {times(n)}" for m, n in o.failed.items() if m)
    said = f"{failed}: {o.detail}" if failed else o.detail
    method = methods.name(c.config, o.nodeid, index)
    lease = c.feed.leases.at.get(o.key)
    parts = [said] if said else []
    if o.phase == LAUNCHED:
        parts.append(f"{names(c, [o.fencer])} is doing it{f' by {method}' if method else ''}")
    elif o.phase == RETRY:
        at = c.feed.retry_at.get((o.nodeid, o.boot, o.attempt))
        when = "now" if at is None or at <= now_ns else f"in {seconds(at - now_ns)}"
        other = f" by {method}" if method and method != o.method else ""
        if not o.attempt and o.patient:
            parts.append("it may come back now that there is a quorum again")
        parts.append(f"{'next' if o.attempt else 'first'} try{other} {when}, at {names(c, [o.fencer])}")
    elif c.state.maintenance is not None:
        parts.append("maintenance freezes it" + _until(c, c.state.maintenance.serial, now_ns))
    elif not lease:
        parts.append("nobody here can, for want of a device")
    if lease and o.phase != LAUNCHED:
        wait_s = c.state.nodes[o.nodeid].self_fence.wait_ms(c.config.lease.margin_ms) / 1000
        left = seconds(lease - now_ns)
        parts.append(f"it resets itself when its lease runs out, which is certain {wait_s:g} s after it was missed (in {left})")
    return ", ".join(parts)


def all_groups(c: Coordinator, now_ns: int) -> list[Wait]:
    if c.mode.value != "primary":
        return []
    found = [wait for _, g in sorted(c.state.groups.items()) for wait in _group(c, g, now_ns)]
    for name, held in sorted((c.feed.switch or {}).items()):
        if held.state == GroupState.JOINING and not (name in c.state.groups and c.state.groups[name].has(c.local.nodeid)):
            found.append(Wait("join", f"{subject(name)}: this node's wish to join has not been ordered yet", "order", (), group=name))
        elif held.state == GroupState.LOST:
            found.append(Wait("lost", f"{subject(name)} is lost on this node: its membership ended while it ran", "fence",
                              (c.local.nodeid,), "reboot this node", "if nobody fences it", name))
    return found


def _group(c: Coordinator, g: GroupRec, now_ns: int) -> list[Wait]:
    if g.changed:
        who = f": {names(c, sorted(g.joins))} wants to join" if g.joins else ""
        return [Wait("group", f"{subject(g.name)}: its membership changed{who}; the next quorate configuration makes a new event",
                     "configuration", (*sorted(g.joins),), group=g.name, event=g.event)]
    if g.phase == Phase.STOP:
        return _stop(c, g, now_ns)
    late = sorted(set(g.members) - g.start_acks)
    return [_answer(c, g, late, "recover", "start_ack")] if g.phase == Phase.START and late else []


def _answer(c: Coordinator, g: GroupRec, late: list[int], verb: str, waits_for: str) -> Wait:
    """A phase that not everybody has answered: who, since when, and what happens at the limit (SAFETY S22)."""
    limit_ms = c.config.groups.stop_limit_ms if g.phase == Phase.STOP else c.config.groups.start_limit_ms
    since = c.feed.clocks.answers.get((g.name, g.event, int(g.phase)), 0)
    end = "is failed and fenced" if g.needs_fence else "is put out of the group"
    text = f"{subject(g.name)}: event {event_text(g.event)} waits for {names(c, late)} to {verb}"
    text += f"; after {limit_ms / 1000:g} s who has not {end}"
    return Wait("group", text, waits_for, (*late,), group=g.name, event=g.event, since_ns=since,
                limit_ns=since + limit_ms * MS if since else 0)


def _stop(c: Coordinator, g: GroupRec, now_ns: int) -> list[Wait]:
    found = []
    late = sorted(set(g.stoppers) - g.stop_acks)
    if late:
        found.append(_answer(c, g, late, "stop", "stop_ack"))
    for o in c.state.blocking(g.name):
        text = f"{subject(g.name)} waits for {names(c, [o.nodeid])} to be fenced; {fence_text(c, o, now_ns)}"
        remedy = "" if o.phase == LAUNCHED and not o.attempt else f"vcs fence ack {o.nodeid}"
        found.append(Wait("group", text, "fence", (o.nodeid,), remedy, OFF, g.name, g.event))
    lower = sorted(h.name for h in groups.lower_unfinished(c.state, g))
    if lower:
        text = f"{subject(g.name)} waits for the lower level to finish: {', '.join(lower)}"
        found.append(Wait("group", text, "lower_level", (*lower,), group=g.name, event=g.event))
    return found


SOURCES: list[Source] = [own_failure, membership, grant, maintenance, away, fences, all_groups]
