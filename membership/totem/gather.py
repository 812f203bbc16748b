# SPDX-License-Identifier: GPL-2.0-only
"""GATHER: agree on who takes part.

Every node tells two sets: who takes part (proc) and who of them has failed (fail). Both only grow, so gathering ends. When all live
ones (proc less fail) tell the same sets, the lowest of them forms the ring. Sets are of processors, incarnations included: a node
that restarts is a new processor, and its old one fails at once, without a timeout.
"""

from __future__ import annotations

from collections.abc import Iterable

from membership.api import Processor
from membership.totem.core import Core
from membership.totem.frames import Regular
from membership.totem.limits import PROCESSORS_MAX
from membership.totem.states import Event, State
from membership.totem.wire import Beacon, Join, Leave

_OTHER_TIMERS = (
    Event.RETRANSMIT_TIMER, Event.HOLD_TIMER, Event.TOKEN_LOSS, Event.COMMIT_WAIT, Event.MERGE_TIMER, Event.CONSENSUS_TIMER,
)


def live(core: Core) -> tuple[Processor, ...]:
    return tuple(sorted(core.proc - core.fail))


def enter(core: Core, now: int, why: str, proc: Iterable[Processor] = (), fail: Iterable[Processor] = ()) -> None:
    """Begin or begin again, with what is newly known. Ends with this node's Join sent and its own opinion evaluated."""
    added = set(proc)
    own_former = {p for p in added if p.nodeid == core.local.nodeid}
    failed = (set(fail) | own_former) - {core.local}
    for p in sorted(failed - core.fail):
        core.health(p.nodeid, "suspect", why)
    if core.state is not State.GATHER:
        core.joins.clear()
        core.forming = None
        core.ring.token.held = None
        core.queue.restart()
        core.note("totem_gather", why=why, ring=str(core.ring.id))
    core.fail |= failed
    core.proc |= failed
    core.proc |= added
    core.set_state(State.GATHER, why)
    core.cancel(*_OTHER_TIMERS)
    core.arm(Event.CONSENSUS_TIMER, now + core.timing.consensus)
    resend_join(core, None, None, now)
    evaluate(core, now)


def agreed(core: Core) -> bool:
    """All live processors have told our sets, and no node is among them twice."""
    alive = live(core)
    mine = (frozenset(core.proc), frozenset(core.fail))
    return len({p.nodeid for p in alive}) == len(alive) and all(core.joins.get(p) == mine for p in alive if p != core.local)


def evaluate(core: Core, now: int) -> None:
    """Called after every change of what is known, so that a lone node needs no echo of its own Join."""
    if not agreed(core):
        return
    core.cancel(Event.CONSENSUS_TIMER)
    if live(core)[0] == core.local:
        core.raise_(Event.CONSENSUS)
    elif Event.COMMIT_WAIT not in core.timers:
        core.arm(Event.COMMIT_WAIT, now + core.timing.token)


def rule(core: Core, sender: Processor, join: Join, now: int, why: str) -> None:
    """The Join rule (figure 4 of the paper), in GATHER."""
    if sender in core.fail:
        core.count("join_of_failed")
        return
    proc, fail = frozenset(join.proc), frozenset(join.fail)
    core.joins[sender] = (proc, fail)
    former = {p for p in core.proc if p.nodeid == sender.nodeid and p != sender} - core.fail
    if proc <= core.proc and fail <= core.fail and not former:
        if proc == core.proc and fail == core.fail:
            evaluate(core, now)
        return  # otherwise it is behind, and our Joins will tell it
    if len(core.proc | proc) > PROCESSORS_MAX:
        core.count("too_many_processors")
        return
    if core.local in fail:
        # It holds us for failed and cannot take that back before a ring is installed: two rings now, one later.
        fail = frozenset([sender])
    enter(core, now, why, proc | {sender}, fail | former)


# --- events -----------------------------------------------------------------------------------------------------------------


def on_join(core: Core, sender: Processor, join: Join, now: int) -> None:
    rule(core, sender, join, now, "join")


def join_operational(core: Core, sender: Processor, join: Join, now: int) -> None:
    """Ignored: who holds us for failed, and a member's Join from before this ring."""
    member = core.ring.by_id.get(sender.nodeid) == sender
    if core.local in join.fail or (member and join.ring_seq < core.ring.id.seq):
        core.count("join_ignored")
        return
    enter(core, now, f"join of node {sender.nodeid}", [sender])
    rule(core, sender, join, now, "join")


def join_forming(core: Core, sender: Processor, join: Join, now: int) -> None:
    """A member of the ring that is being formed has gone back to gathering after it had heard of that ring."""
    forming = core.forming
    if forming is None or forming.ring.by_id.get(sender.nodeid) != sender or join.ring_seq < forming.ring.id.seq:
        core.count("join_ignored")
        # It still gathers: perhaps because no frame of ours has named it yet, so that it refuses the commit token from us.
        core.greet(core.peers[sender.nodeid], now)
        return
    enter(core, now, f"join of node {sender.nodeid} while forming")
    rule(core, sender, join, now, "join")


def beacon_operational(core: Core, sender: Processor, beacon: Beacon, now: int) -> None:
    if core.ring.by_id.get(sender.nodeid) != sender:
        former = [p for p in core.ring.members if p.nodeid == sender.nodeid]
        core.health(sender.nodeid, "returned")
        enter(core, now, f"node {sender.nodeid} is near", [sender], former)
    elif beacon.ring.seq > core.ring.id.seq:
        enter(core, now, f"node {sender.nodeid} is in a later ring")


def beacon_gather(core: Core, sender: Processor, _beacon: Beacon, now: int) -> None:
    if sender not in core.proc and len(core.proc) < PROCESSORS_MAX:
        former = [p for p in core.proc if p.nodeid == sender.nodeid]
        enter(core, now, f"node {sender.nodeid} is near", [sender], former)


def on_leave(core: Core, sender: Processor, leave: Leave, now: int) -> None:
    """A clean leave: the sender has failed as far as the ring is concerned, and nobody needs to wait to find that out."""
    if core.state is State.GATHER:
        concerned = sender in core.proc and sender not in core.fail
    else:
        ring = core.ring if core.forming is None else core.forming.ring
        concerned = ring.by_id.get(sender.nodeid) == sender
    if concerned:
        core.health(sender.nodeid, "process_dead" if leave.gasp else "left")
        enter(core, now, f"the process of node {sender.nodeid} died" if leave.gasp else f"node {sender.nodeid} leaves", fail=[sender])


def on_mcast(core: Core, _sender: object, message: Regular, _now: int) -> None:
    """A late frame of the old ring: kept for recovery, unless this node has already promised what it holds."""
    if core.attempt.seq:
        core.count("late_frames")
    else:
        core.ring.add(message)


def token_lost(core: Core, _sender: object, _message: object, now: int) -> None:
    enter(core, now, f"token lost in {core.state.name}")


def exclude(core: Core, _sender: object, _message: object, now: int) -> None:
    suspect, core.suspect = core.suspect, None
    if suspect is not None:
        enter(core, now, f"node {suspect.nodeid} fails to receive", fail=[suspect])


def resend_join(core: Core, _sender: object, _message: object, now: int) -> None:
    core.send_message(core.everybody, core.make_join(now))
    core.arm(Event.JOIN_TIMER, now + core.timing.join)


def consensus_timeout(core: Core, _sender: object, _message: object, now: int) -> None:
    mine = (frozenset(core.proc), frozenset(core.fail))
    silent = [p for p in live(core) if p != core.local and core.joins.get(p) != mine]
    enter(core, now, "no consensus", fail=silent)


def commit_wait_over(core: Core, _sender: object, _message: object, now: int) -> None:
    core.joins.clear()
    enter(core, now, "no commit token")


def announce(core: Core, _sender: object, _message: object, now: int) -> None:
    """The representative tells configured nodes outside the ring that it exists; they answer, and both rings gather."""
    outside = tuple(n for n in core.everybody if n not in core.ring.by_id)
    if outside and core.ring.rep == core.local.nodeid:
        core.send_message(outside, Beacon(core.ring.id, core.heard(now)))
        core.arm(Event.MERGE_TIMER, now + core.timing.merge)
