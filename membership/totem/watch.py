# SPDX-License-Identifier: GPL-2.0-only
"""Failure detection with identity: who owes us an answer, since when, and what follows.

What goes to a peer and demands an answer is an *ask*: a token (the receiver acknowledges it at once while the ring is calm; on a busy
ring the token's return is the answer), a probe, an alarm. Only a round trip answers: hearing a peer is not enough, because a
link may work in one direction. The clock of a peer runs from the first ask that is not answered:

- the token's hop is sent again after a few round trip times, on every link, until it is answered;
- what follows from silence is in verdict.py.
"""

from __future__ import annotations

from membership.api import Processor
from membership.totem import parked
from membership.totem.control import Alarm, Control, Links, Probe, ProbeAck, TokenAck
from membership.totem.core import Core
from membership.totem.limits import (
    ASKS_MIN,
    REFUSED_NS,
    RTO_MEMBER_NS,
    RTO_MIN_NS,
)
from membership.totem.ring import Ring
from membership.totem.states import Event, State
from membership.totem.suspects import NUMBER_STEP, TO_ALL, Clock
from vcs.model import RingId

# --- asking and answers -----------------------------------------------------------------------------------------------------


def ask(core: Core, nodeid: int, now: int) -> Clock:
    """Something that demands an answer goes to the peer."""
    clock = core.watch.clocks[nodeid]
    if not clock.asked_ns or now - clock.last_ns > core.timing.alarm:
        # A question that was not repeated for so long was given up: the answer has not been missed since.
        clock.asked_ns = now
        clock.asks = clock.refused = clock.nonce_first = 0
    clock.asks += 1
    clock.last_ns = now
    return clock


def answered(core: Core, nodeid: int, now: int, took_ns: int = 0) -> None:
    """The peer has proved a round trip; ``took_ns``: how long it took, if that is known."""
    clock = core.watch.clocks[nodeid]
    clock.asked_ns = clock.asks = clock.refused = clock.nonce_first = 0
    clock.answered_ns = now
    if took_ns:
        clock.took(took_ns)
    if core.watch.held:
        current = core.peers[nodeid].current
        if current is not None and current in core.watch.held:
            parked.answered(core, current, now)


def probe(core: Core, nodeid: int, now: int) -> None:
    """Ask on every link: one numbered probe each, so that each answer tells which link works."""
    watch = core.watch
    clock = ask(core, nodeid, now)
    for link in range(core.links.count):
        clock.nonce = watch.number(core.local, nodeid % TO_ALL)
        if not clock.nonce_first:
            clock.nonce_first, clock.first_ns = clock.nonce, now
        core.links.asked(nodeid, link, now)
        core.send_message((nodeid,), Probe(clock.nonce), link=link)
    clock.probe_ns = now
    core.counters["probes"] += 1


def doubt_links(core: Core, now: int) -> None:
    """Some peers missed frames: a question on every link shows whether the one that is used has failed."""
    for nodeid in sorted(core.links.doubtful):
        clock = core.watch.clocks.get(nodeid)
        if clock is not None and now - clock.last_ns >= core.timing.probe:
            probe(core, nodeid, now)
    core.links.doubtful.clear()


def receive(core: Core, sender: Processor, message: Control, now: int) -> None:
    """A message of failure detection: the same in every state."""
    if isinstance(message, Probe):
        core.send_message((sender.nodeid,), ProbeAck(message.nonce), link=core.arrived_on)
        if core.watch.held:
            parked.it_speaks(core, sender, now)
            wake(core, now)
    elif isinstance(message, ProbeAck):
        _probe_ack(core, sender, message, now)
    elif isinstance(message, TokenAck):
        _token_ack(core, sender, message, now)
    elif isinstance(message, Links):
        parked.on_links(core, sender, message, now)
    else:
        _on_alarm(core, sender, message, now)


def _probe_ack(core: Core, sender: Processor, message: ProbeAck, now: int) -> None:
    clock = core.watch.clocks[sender.nodeid]
    if message.nonce & TO_ALL not in (sender.nodeid % TO_ALL, TO_ALL):
        return  # the answer to somebody else's question proves nothing
    took, links = 0, core.links.count * NUMBER_STEP
    if message.nonce + links > clock.nonce:
        took = now - clock.probe_ns
    elif clock.nonce_first and clock.nonce_first <= message.nonce < clock.nonce_first + links:
        took = now - clock.first_ns  # slower than we ask
    core.links.answered(sender.nodeid, core.arrived_on, now, took or None)
    if clock.nonce_first and clock.nonce_first <= message.nonce <= clock.nonce:
        answered(core, sender.nodeid, now, took)


def _on_alarm(core: Core, sender: Processor, message: Alarm, now: int) -> None:
    core.send_message((sender.nodeid,), ProbeAck(message.nonce), link=core.arrived_on)
    ring = ring_of(core)
    if ring is None or ring.by_id.get(sender.nodeid) != sender:
        return
    for nodeid in message.nodeids:
        if nodeid in ring.by_id and nodeid != core.local.nodeid:
            core.watch.alarmed[nodeid] = now + core.timing.detect
            wake(core, now)


def refused(core: Core, nodeid: int, now: int) -> None:
    """The kernel says that nobody listens at the peer's address: a hint that anybody can forge. It makes us ask, no more."""
    clock = core.watch.clocks.get(nodeid)
    if clock is None or nodeid not in scope_of(core):
        return
    if clock.asked_ns:
        clock.refused += 1
    if not clock.asked_ns or now - clock.last_ns >= REFUSED_NS // ASKS_MIN:
        probe(core, nodeid, now)
    wake(core, now + REFUSED_NS // ASKS_MIN)


# --- the token's hop --------------------------------------------------------------------------------------------------------


def token_sent(core: Core, ring: Ring, token_seq: int, now: int) -> None:
    """A token (regular or commit) went to the successor: it is sent again until something shows that it arrived."""
    watch = core.watch
    clock = ask(core, ring.successor, now)
    watch.hop_ring, watch.hop_seq, watch.hop_ns = ring.id, token_seq, now
    watch.hop_open, watch.hop_again = True, False
    core.links.asked(ring.successor, core.links.best[ring.successor], now)
    least = RTO_MIN_NS + RTO_MEMBER_NS * len(ring.members)
    watch.rto_ns = min(max(least, clock.mean_ns + 4 * clock.dev_ns, 2 * watch.rotation_ns), core.timing.retransmit)
    core.arm(Event.RETRANSMIT_TIMER, now + watch.rto_ns)


def resend(core: Core, ring: Ring, body: bytes, now: int) -> None:
    """The hop is not answered in time: again, on every link."""
    watch = core.watch
    watch.hop_again = True
    core.count("token_retransmits")
    ask(core, ring.successor, now)
    for link in range(core.links.count):
        core.links.asked(ring.successor, link, now)
    core.send((ring.successor,), body, every_link=True)
    watch.rto_ns = min(2 * watch.rto_ns, core.timing.retransmit)
    core.arm(Event.RETRANSMIT_TIMER, now + watch.rto_ns)


def token_came(core: Core, ring: Ring, busy: bool, now: int) -> None:
    """A new token of the ring on which our last one went on: it has been round, so the successor had it."""
    watch = core.watch
    if not busy:
        watch.lap_ns += (min(now - watch.progress_ns, 4 * core.timing.hold) - watch.lap_ns) // 8
    watch.progress_ns = now
    if watch.hop_open:
        watch.hop_open = False
        if busy:
            watch.rotation_ns += (now - watch.hop_ns - watch.rotation_ns) // 8
        if not watch.hop_again:
            core.links.answered(ring.successor, core.links.best[ring.successor], now)
        else:
            core.links.neutral(ring.successor)
    if watch.clocks[ring.successor].asked_ns:
        answered(core, ring.successor, now)
    predecessor = ring.predecessor
    if watch.clocks[predecessor].asked_ns:
        answered(core, predecessor, now)


def acknowledge(core: Core, sender: Processor, ring: RingId, token_seq: int) -> None:
    """Tell the sender of a token that it is here."""
    core.send_message((sender.nodeid,), TokenAck(ring, token_seq), link=core.arrived_on)


def _token_ack(core: Core, sender: Processor, message: TokenAck, now: int) -> None:
    watch = core.watch
    if message.ring != watch.hop_ring or message.token_seq != watch.hop_seq or not watch.hop_open:
        return
    ring = ring_of(core)
    if ring is None or ring.id != message.ring or ring.by_id.get(sender.nodeid) != sender or sender.nodeid != ring.successor:
        return
    watch.hop_open = False
    core.cancel(Event.RETRANSMIT_TIMER)
    took = 0 if watch.hop_again else now - watch.hop_ns
    core.links.answered(sender.nodeid, core.arrived_on, now, took or None)
    answered(core, sender.nodeid, now, took)


# --- time -------------------------------------------------------------------------------------------------------------------


def wake(core: Core, at: int) -> None:
    """The clocks are looked at by then."""
    due = core.timers.get(Event.WATCH_TIMER)
    if due is None or at < due:
        core.arm(Event.WATCH_TIMER, at)


def ring_of(core: Core) -> Ring | None:
    """The ring whose token we wait for; None while there is none."""
    if core.forming is not None:
        return core.forming.ring
    return core.ring if core.state is State.OPERATIONAL else None


def scope_of(core: Core) -> tuple[int, ...]:
    """Nodes whose silence matters."""
    ring = ring_of(core)
    if ring is not None:
        return ring.others
    return tuple(sorted(p.nodeid for p in core.proc - core.fail if p != core.local))


def quiet(core: Core) -> int:
    """So long without a token, and its neighbours are asked (ns)."""
    return max(core.timing.hold, core.watch.lap_ns) * 5 // 4 + 2 * core.watch.rotation_ns


def began(core: Core, now: int) -> None:
    """A ring is installed or being formed: nobody owes anything, its token is awaited."""
    for clock in core.watch.clocks.values():
        clock.asked_ns = clock.asks = clock.refused = 0
    core.watch.alarmed.clear()
    core.watch.hop_open = False
    core.watch.progress_ns = now
    core.watch.rotation_ns = 0
    core.watch.lap_ns = core.timing.hold
    wake(core, now + quiet(core))
