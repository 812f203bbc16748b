# SPDX-License-Identifier: GPL-2.0-only
"""GATHER: agree on who takes part.

Every node tells who takes part (proc), who of them has failed (fail: it left, or another incarnation took its seat), and who has no
round trip with whom (claims; each node is the authority on its own). These sets only grow within a gathering, so it ends. From them
each computes its *choice*: its part of the live ones, divided so that no two members of a part are claimed to be apart (clique.py).
When all members of a choice tell this same choice, the lowest of them forms the ring. Sets are of processors, incarnations included:
a node that restarts is a new processor, and its old one fails at once, without a timeout.

A Join says everything and goes to everybody, but only when the choice changes; it goes again only to those who do not agree. What
becomes known in one go goes out in one Join, so a change costs one Join of each node; when many changes follow each other, as when a
whole cluster starts, the Joins are spaced, from JOIN_SPACING_NS up to ``join_ms``.
"""

from __future__ import annotations

from collections.abc import Iterable

from membership.api import Processor
from membership.totem import clique, parked, verdict, watch
from membership.totem.clique import Claim
from membership.totem.core import Core
from membership.totem.frames import Regular
from membership.totem.limits import JOIN_AGAIN_NS, JOIN_SPACING_NS, PROCESSORS_MAX
from membership.totem.peers import Peer
from membership.totem.states import Event, State
from membership.totem.wire import Beacon, Join, Leave

_OTHER_TIMERS = (
    Event.RETRANSMIT_TIMER, Event.HOLD_TIMER, Event.TOKEN_LOSS, Event.COMMIT_WAIT, Event.MERGE_TIMER, Event.CONSENSUS_TIMER,
)


def live(core: Core) -> tuple[Processor, ...]:
    return tuple(sorted(core.proc - core.fail))


def enter(core: Core, now: int, why: str, proc: Iterable[Processor] = (), fail: Iterable[Processor] = (),
          claims: Iterable[Claim] = ()) -> None:
    """Begin or go on, with what is newly known. Ends with this node's opinion evaluated, and its Join sent or due."""
    added = set(proc)
    own_former = {p for p in added if p.nodeid == core.local.nodeid}
    failed = (set(fail) | own_former) - {core.local}
    if core.state is not State.GATHER:
        core.joins.clear()
        core.forming = None
        core.ring.token.held = None
        core.queue.restart()
        core.cancel(*_OTHER_TIMERS)
        core.choice = ()
        core.join_pause_ns = JOIN_AGAIN_NS
        core.join_space_ns = JOIN_SPACING_NS
        core.claims = {c for c in core.claims if c[0] != core.local}  # ours as they are now; what the others claim, they will say
        core.note("totem_gather", why=why, ring=str(core.ring.id))
        core.history.gathering(why)
    core.fail |= failed
    core.proc |= failed
    core.proc |= added
    core.set_state(State.GATHER, why)
    core.claims |= {c for c in claims if core.proc.issuperset(c)}
    core.claims |= {(core.local, p) for p in core.watch.held if p in core.proc}
    watch.wake(core, now + core.timing.probe // 2)
    decide(core, now)


def decide(core: Core, now: int) -> None:
    """Make up our mind again, and say so if it changed."""
    alive = live(core)
    claimed = {q for _p, q in core.claims}.intersection(alive) - core.vouched - {core.local}
    core.vouched |= {q for q in claimed if q in core.joins or verdict.vouches(core, q, now)}
    absent = claimed - core.vouched
    choice, core.chosen_first = clique.share([p for p in alive if p not in absent], core.claims, core.local)
    if choice != core.choice:
        core.choice = choice
        core.chosen_ns = now
        core.join_seq += 1
        core.cancel(Event.COMMIT_WAIT)
        core.arm(Event.CONSENSUS_TIMER, now + core.timing.consensus)
        core.join_due = True
        core.arm(Event.JOIN_TIMER, max(now, core.join_ns + core.join_space_ns))
    evaluate(core, now)


def agreed(core: Core) -> bool:
    """All whom we chose have chosen the same."""
    return all(p == core.local or core.joins.get(p, (0, ()))[1] == core.choice for p in core.choice)


def evaluate(core: Core, now: int) -> None:
    """Called after every change of what is known, so that a lone node needs no echo of its own Join."""
    if not agreed(core):
        return
    if not core.chosen_first and now - core.chosen_ns < JOIN_AGAIN_NS:
        return  # left outside: those who left us may not know everything yet
    core.cancel(Event.CONSENSUS_TIMER)
    if core.choice[0] == core.local:
        core.raise_(Event.CONSENSUS)
    elif Event.COMMIT_WAIT not in core.timers:
        core.arm(Event.COMMIT_WAIT, now + core.timing.token)


def rule(core: Core, sender: Processor, join: Join, now: int, why: str) -> None:
    """The Join rule (figure 4 of the paper, with claims), in GATHER."""
    if sender in core.fail:
        core.count("join_of_failed")
        return
    if len(core.proc | set(join.proc)) > PROCESSORS_MAX:
        core.count("too_many_processors")
        return
    if sender not in core.watch.held:  # a Join heard is no round trip: it ends nobody's claim, but while it speaks it is not silent
        watch.answered(core, sender.nodeid, now)
    known = core.joins.get(sender, (0, ()))[0]
    claims = _believed(core, sender, join)
    stale: set[Claim] = set()
    if join.seq >= known:
        stale = {c for c in core.claims if c[0] == sender}.difference(claims)
        core.claims -= stale
        core.joins[sender] = (join.seq, join.choice)
    former = {p for p in core.proc if p.nodeid == sender.nodeid and p != sender}
    if core.local in join.fail:
        # It holds us for failed and cannot take that back before a ring is installed: two rings now, one later.
        enter(core, now, why, join.proc, {sender} | former)
        return
    if not former and not stale and core.state is State.GATHER and _nothing_new(core, sender, join, claims):
        if join.seq == known and join.choice == core.choice:
            # It says again what we agree with: it could not use our Join when that came (it was forming another ring).
            greet(core, core.peers[sender.nodeid], now)
        evaluate(core, now)
        return
    core.vouched.update(join.vouched)
    enter(core, now, why, {sender, *join.proc}, former.union(join.fail), claims)


def _believed(core: Core, sender: Processor, join: Join) -> set[Claim]:
    """The claims in a Join that count. Each node is the authority on its own: what it says itself in this gathering replaces what others
    repeat of former ones. Otherwise a claim long taken back would go round for ever among those who never install a ring."""
    new = join.seq >= core.joins.get(sender, (0, ()))[0]
    return {c for c in join.claims if (new if c[0] == sender else c[0] != core.local and c[0] not in core.joins)}


def _nothing_new(core: Core, sender: Processor, join: Join, claims: set[Claim]) -> bool:
    return (core.proc.issuperset(join.proc) and core.fail.issuperset(join.fail) and core.claims.issuperset(claims)
            and core.vouched.issuperset(join.vouched) and (sender in core.vouched or all(q != sender for _p, q in core.claims)))


def send_join(core: Core, to: tuple[int, ...], now: int) -> None:
    message = Join(core.ring_seq, core.join_seq, tuple(sorted(core.proc)), tuple(sorted(core.fail)), core.heard(now), core.choice,
                   tuple(sorted(core.vouched & core.proc)), tuple(sorted(core.claims)))
    core.send_message(to, message, every_link=True)


def greet(core: Core, peer: Peer, now: int) -> None:
    """Tell a node that does not know it yet that we hear it."""
    if not peer.may_greet(now):
        return
    if core.state is State.GATHER:
        send_join(core, (peer.nodeid,), now)
    else:
        core.send_message((peer.nodeid,), parked.beacon(core, now))


# --- events -----------------------------------------------------------------------------------------------------------------


def on_join(core: Core, sender: Processor, join: Join, now: int) -> None:
    rule(core, sender, join, now, "join")


def join_operational(core: Core, sender: Processor, join: Join, now: int) -> None:
    """Ignored: who holds us for failed, a member's Join from before this ring, and an outsider that cannot make the ring larger."""
    member = core.ring.by_id.get(sender.nodeid) == sender
    if core.local in join.fail or (member and join.ring_seq < core.ring.id.seq):
        core.count("join_ignored")
        return
    if not member:
        others = tuple(p.nodeid for p in join.choice if p.nodeid not in core.ring.by_id)
        claims = [(p.nodeid, q.nodeid) for p, q in join.claims]
        if not parked.worthwhile(core, sender.nodeid, others, claims, now):
            core.count("parked")
            greet(core, core.peers[sender.nodeid], now)  # our beacon tells it why
            return
    former = [p for p in core.ring.members if p.nodeid == sender.nodeid and p != sender]
    enter(core, now, f"join of node {sender.nodeid}", [sender], former)
    rule(core, sender, join, now, "join")


def join_forming(core: Core, sender: Processor, join: Join, now: int) -> None:
    """A member of the ring that is being formed gathers: after it had accepted the ring, or instead."""
    forming = core.forming
    if forming is not None and forming.ring.by_id.get(sender.nodeid) == sender:
        seq, _choice = core.joins.get(sender, (0, ()))
        accepted_and_gave_up = join.ring_seq >= forming.ring.id.seq
        chose_otherwise = core.state is State.COMMIT and join.seq > seq and join.choice != forming.ring.members
        if accepted_and_gave_up or chose_otherwise:
            enter(core, now, f"join of node {sender.nodeid} while forming")
            rule(core, sender, join, now, "join")
            return
        if join.seq > seq:
            core.joins[sender] = (join.seq, join.choice)
            core.count("join_ignored")
            return
    core.count("join_ignored")
    # It still gathers: perhaps because no frame of ours has named it yet, so that it refuses the commit token from us.
    greet(core, core.peers[sender.nodeid], now)


def beacon_operational(core: Core, sender: Processor, beacon: Beacon, now: int) -> None:
    if core.ring.by_id.get(sender.nodeid) == sender:
        if beacon.ring.seq > core.ring.id.seq:
            enter(core, now, f"node {sender.nodeid} is in a later ring")
    elif parked.heard_beacon(core, sender.nodeid, beacon, now):
        former = [p for p in core.ring.members if p.nodeid == sender.nodeid]
        core.health(sender.nodeid, "returned")
        enter(core, now, f"node {sender.nodeid} is near", [sender], former)
    else:
        core.count("parked")


def beacon_gather(core: Core, sender: Processor, beacon: Beacon, now: int) -> None:
    """One more takes part; unless its ring and we cannot be together, which it says so: then it is not waited for."""
    if sender not in core.proc and len(core.proc) >= PROCESSORS_MAX:
        return
    apart = any(q == core.local.nodeid for q, _mask in beacon.apart)
    former = [p for p in core.proc if p.nodeid == sender.nodeid and p != sender]
    claims = [(sender, core.local)] if apart else []
    if sender not in core.proc or not core.claims.issuperset(claims):
        enter(core, now, f"node {sender.nodeid} is near", [sender], former, claims)


def on_leave(core: Core, sender: Processor, leave: Leave, now: int) -> None:
    """A clean leave: the sender has failed as far as the ring is concerned, and nobody needs to wait to find that out."""
    if core.state is State.GATHER:
        concerned = sender in core.proc and sender not in core.fail
    else:
        ring = core.ring if core.forming is None else core.forming.ring
        concerned = ring.by_id.get(sender.nodeid) == sender
    if concerned:
        core.health(sender.nodeid, "process_dead" if leave.gasp else "left", engine=sender.engine)
        enter(core, now, f"the process of node {sender.nodeid} died" if leave.gasp else f"node {sender.nodeid} leaves", fail=[sender])


def suspected(core: Core, _sender: object, _message: object, now: int) -> None:
    """New claims of ours. While a ring is being formed they matter if they concern its members."""
    verdicts, core.watch.verdicts = core.watch.verdicts, []
    concerned = core.proc
    if core.forming is not None:
        concerned = set(core.forming.ring.members)
    elif core.state is State.OPERATIONAL:
        concerned = set(core.ring.members)
    claims = [(core.local, p) for p in verdicts if p in concerned]
    if claims:
        nodes = ", ".join(str(p.nodeid) for _me, p in claims)
        enter(core, now, f"no answer from node {nodes}", claims=claims)


def on_mcast(core: Core, _sender: object, message: Regular, _now: int) -> None:
    """A late frame of the old ring: kept for recovery, unless this node has already promised what it holds."""
    if core.attempt.seq:
        core.count("late_frames")
    else:
        core.ring.add(message)


def token_lost(core: Core, _sender: object, _message: object, now: int) -> None:
    enter(core, now, f"token lost in {core.state.name}")


def exclude(core: Core, _sender: object, _message: object, now: int) -> None:
    """It is there and hears little: out of this ring, and outside until a claim's time is over, longer each time."""
    suspect, core.suspect = core.suspect, None
    if suspect is not None:
        core.health(suspect.nodeid, "suspect", "it fails to receive")
        parked.hold(core, suspect, now)
        enter(core, now, f"node {suspect.nodeid} fails to receive", fail=[suspect])


def resend_join(core: Core, _sender: object, _message: object, now: int) -> None:
    """Our Join to everybody when it says something new, again to those who do not agree with it otherwise."""
    if core.join_due:
        core.join_due = False
        core.join_space_ns = min(2 * core.join_space_ns, core.timing.join)
        core.count("joins")
        send_join(core, core.everybody, now)
    else:
        to = tuple(p.nodeid for p in live(core) if p != core.local and _owed(core, p))
        send_join(core, to, now)
    core.join_ns = now
    core.arm(Event.JOIN_TIMER, now + core.join_pause_ns)
    core.join_pause_ns = min(2 * core.join_pause_ns, core.timing.join)
    if not core.chosen_first:
        evaluate(core, now)


def _owed(core: Core, p: Processor) -> bool:
    """What ``p`` told does not go together with our choice: one of us lacks something."""
    choice = core.joins.get(p, (0, ()))[1]
    if not choice:
        return p in core.choice or (core.local, p) not in core.claims
    return choice != core.choice and not set(choice).isdisjoint(core.choice)


def consensus_timeout(core: Core, _sender: object, _message: object, now: int) -> None:
    """The fallback: who answers and does not agree is told apart from us, like one who does not answer."""
    others = [p for p in core.choice if p != core.local and core.joins.get(p, (0, ()))[1] != core.choice]
    for p in others:
        core.health(p.nodeid, "suspect", "it does not agree")
        parked.hold(core, p, now)
    core.arm(Event.CONSENSUS_TIMER, now + core.timing.consensus)
    enter(core, now, "no consensus", claims=[(core.local, p) for p in others])


def commit_wait_over(core: Core, _sender: object, _message: object, now: int) -> None:
    """All agreed and nothing came of it: ask everybody again."""
    core.joins.clear()
    core.choice = ()
    enter(core, now, "no commit token")


def announce(core: Core, _sender: object, _message: object, now: int) -> None:
    """The representative tells configured nodes outside the ring that it exists; they answer, and both rings gather."""
    outside = tuple(n for n in core.everybody if n not in core.ring.by_id)
    if outside and core.ring.rep == core.local.nodeid:
        core.send_message(outside, parked.beacon(core, now), every_link=True)
        core.arm(Event.MERGE_TIMER, now + core.timing.merge)
