# SPDX-License-Identifier: GPL-2.0-only
"""Failure detection with identity: who owes us an answer, since when, and what follows.

What goes to a peer and demands an answer is an *ask*: a token (the receiver acknowledges it at once while the ring is calm; on a busy
ring the token's return is the answer), a probe, an alarm. Only a round trip answers: hearing a peer is not enough, because a
link may work in one direction. The clock of a peer runs from the first ask that is not answered:

- the token's hop is sent again after a few round trip times, on every link, until it is answered;
- silent for half of ``detect``: the *alarm*. Everybody is told and asks the silent one too, and everybody is asked, so that when
  several neighbours have failed together all their clocks run before the gathering begins;
- silent for ``detect`` and three asks: the verdict. It is a *claim* (no round trip between it and us), never the word that somebody
  failed, and the gathering decides what follows (gather.py, clique.py). Where others claim the same, ``confirm`` is enough.

Self-doubt comes first. Time in which this process did not run counts for nobody's silence, and a node that is late often is more
patient with everybody. A node whose own links are all down accuses nobody.
"""

from __future__ import annotations

from membership.api import Processor
from membership.totem import parked
from membership.totem.control import Alarm, Control, Links, Probe, ProbeAck, TokenAck
from membership.totem.core import Core
from membership.totem.limits import (
    ASKS_MIN,
    DOUBT_DECAY_NS,
    DOUBT_MAX,
    LINK_CHECK_NS,
    REFUSED_MIN,
    REFUSED_NS,
    RTO_MEMBER_NS,
    RTO_MIN_NS,
)
from membership.totem.ring import Ring
from membership.totem.states import Event, State
from membership.totem.suspects import Clock
from vcs.model import RingId

_ACCUSING = (Event.TOKEN_LOSS, Event.CONSENSUS_TIMER, Event.COMMIT_WAIT)
"Timers whose end says something about others."

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
        watch.nonce += 1
        clock.nonce = watch.nonce
        if not clock.nonce_first:
            clock.nonce_first = watch.nonce
        core.links.asked(nodeid, link, now)
        core.send_message((nodeid,), Probe(watch.nonce), link=link)
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
    took = now - clock.last_ns if message.nonce + core.links.count > clock.nonce else 0
    core.links.answered(sender.nodeid, core.arrived_on, now, took or None)
    if clock.nonce_first and clock.nonce_first <= message.nonce <= clock.nonce:
        answered(core, sender.nodeid, now, took)


def _on_alarm(core: Core, sender: Processor, message: Alarm, now: int) -> None:
    core.send_message((sender.nodeid,), ProbeAck(message.nonce), link=core.arrived_on)
    ring = _ring(core)
    if ring is None or ring.by_id.get(sender.nodeid) != sender:
        return
    for nodeid in message.nodeids:
        if nodeid in ring.by_id and nodeid != core.local.nodeid:
            core.watch.alarmed[nodeid] = now + core.timing.detect
            wake(core, now)


def refused(core: Core, nodeid: int, now: int) -> None:
    """The kernel says that nobody listens at the peer's address: a hint that anybody can forge. It makes us ask, no more."""
    clock = core.watch.clocks.get(nodeid)
    if clock is None or nodeid not in _scope(core):
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
    ring = _ring(core)
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


def _ring(core: Core) -> Ring | None:
    """The ring whose token we wait for; None while there is none."""
    if core.forming is not None:
        return core.forming.ring
    return core.ring if core.state is State.OPERATIONAL else None


def _scope(core: Core) -> tuple[int, ...]:
    """Nodes whose silence matters."""
    ring = _ring(core)
    if ring is not None:
        return ring.others
    return tuple(sorted(p.nodeid for p in core.proc - core.fail if p != core.local))


def quiet(core: Core) -> int:
    """So long without a token, and its neighbours are asked (ns)."""
    return max(2 * core.timing.hold, core.timing.hold + 2 * core.watch.rotation_ns)


def began(core: Core, now: int) -> None:
    """A ring is installed or being formed: nobody owes anything, its token is awaited."""
    for clock in core.watch.clocks.values():
        clock.asked_ns = clock.asks = clock.refused = 0
    core.watch.alarmed.clear()
    core.watch.hop_open = False
    core.watch.progress_ns = now
    core.watch.rotation_ns = 0
    wake(core, now + quiet(core))


def on_timer(core: Core, _sender: object, _message: object, now: int) -> None:
    """Ask who has to be asked, judge, and say when to look again."""
    watch, step = core.watch, core.timing.probe
    if watch.doubt and now - watch.doubt_ns >= DOUBT_DECAY_NS:
        watch.doubt -= 1
        watch.doubt_ns = now
    scope = _scope(core)
    ring = _ring(core)
    targets = {n for n in scope if watch.clocks[n].asked_ns}
    for nodeid, until in list(watch.alarmed.items()):
        if until <= now or nodeid not in scope:
            del watch.alarmed[nodeid]
        else:
            targets.add(nodeid)
    at = now + step if targets else now + 8 * step
    if ring is not None and ring.others:
        waited = now - watch.progress_ns
        if ring.token.held is None and waited >= quiet(core):
            targets |= {ring.successor, ring.predecessor}
            at = now + step
        else:
            at = min(at, max(watch.progress_ns + quiet(core), now + step))
        if core.links.count > 1:
            targets |= core.links.to_check((ring.successor, ring.predecessor), ring.others, now)
            at = min(at, core.links.checked_ns + LINK_CHECK_NS)
            for nodeid, link, works in core.links.told():
                core.health(nodeid, "link_up" if works else "link_down", f"link {link} to node {nodeid}")
    elif ring is None:
        targets |= _unheard(core, now)
        at = now + step
    for nodeid in sorted(targets):
        if now - watch.clocks[nodeid].last_ns >= step:
            probe(core, nodeid, now)
    for nodeid in parked.due(core, now):
        probe(core, nodeid, now)
    at = min([at, *(h.next_ns for h in watch.held.values())])
    judge(core, scope, now)
    if scope or watch.held:
        wake(core, max(min([at, *_limits(core, scope, now)]), now + 1_000_000))


def _unheard(core: Core, now: int) -> set[int]:
    """In a gathering: whose word we wait for. A Join asks nobody, for who has nothing to do with us does not answer it."""
    if Event.COMMIT_WAIT in core.timers:
        return {core.choice[0].nodeid}  # agreed: the next word is its commit token
    since = now - 2 * core.timing.probe
    return {p.nodeid for p in core.proc - core.fail if p != core.local and core.joins.get(p, (0, ()))[1] != core.choice
            and core.watch.clocks[p.nodeid].answered_ns < since}


def _limits(core: Core, scope: tuple[int, ...], now: int) -> list[int]:
    """When the clocks that run reach the alarm or the verdict."""
    out = []
    for nodeid in scope:
        clock = core.watch.clocks[nodeid]
        if clock.asked_ns:
            out += [at for at in (clock.asked_ns + core.timing.alarm, clock.asked_ns + patience(core, nodeid)) if at > now]
    return out


def patience(core: Core, nodeid: int) -> int:
    """How long the peer may be silent (ns)."""
    watch, timing = core.watch, core.timing
    clock = watch.clocks[nodeid]
    if clock.refused >= REFUSED_MIN:
        least = REFUSED_NS
    elif any(q.nodeid == nodeid for _p, q in core.claims):
        least = _confirm(core, clock)
    else:
        least = min(max(timing.detect, clock.mean_ns + 8 * clock.dev_ns), 2 * timing.detect)
    return least * (2 + watch.doubt) // 2


def _confirm(core: Core, clock: Clock) -> int:
    return min(max(core.timing.confirm, clock.mean_ns + 4 * clock.dev_ns), 2 * core.timing.detect)


def judge(core: Core, scope: tuple[int, ...], now: int) -> None:
    """Raise alarms, reach verdicts."""
    watch, timing = core.watch, core.timing
    if len(core.links.down) >= core.links.count:
        return
    held = {p.nodeid for p in watch.held if core.peers[p.nodeid].current == p}
    silent = {n: now - c.asked_ns for n in scope
              if (c := watch.clocks[n]).asked_ns and now - c.last_ns <= timing.alarm and n not in held}
    guilty = [n for n, ns in silent.items() if watch.clocks[n].asks >= ASKS_MIN and ns >= patience(core, n)]
    if guilty:
        # In the same breath: others that owe an answer for as long as it takes to confirm.
        guilty += [n for n, ns in silent.items()
                   if n not in guilty and (c := watch.clocks[n]).asks >= ASKS_MIN and ns >= _confirm(core, c)]
        for nodeid in guilty:
            _verdict(core, nodeid, silent[nodeid], now)
        if watch.verdicts:
            core.raise_(Event.SUSPECT)
        return
    ring = _ring(core)
    if ring is not None:
        _alarm(core, ring, silent, now)


def _verdict(core: Core, nodeid: int, silent: int, now: int) -> None:
    watch = core.watch
    clock = watch.clocks[nodeid]
    ring = _ring(core)
    members = (ring.by_id[nodeid],) if ring is not None else tuple(p for p in core.proc - core.fail if p.nodeid == nodeid)
    how = f", its port refused {clock.refused} times" if clock.refused else ""
    for processor in members:
        if (core.local, processor) not in core.claims:
            core.health(nodeid, "suspect", f"no answer for {silent // 1_000_000} ms to {clock.asks} asks{how}")
            parked.hold(core, processor, now)
            watch.verdicts.append(processor)


def _alarm(core: Core, ring: Ring, silent: dict[int, int], now: int) -> None:
    """Half of the time is over for somebody: everybody is told, and asked."""
    watch, timing = core.watch, core.timing
    urgent = [n for n, ns in silent.items() if ns >= timing.alarm or watch.clocks[n].refused]
    if not urgent or now - watch.alarm_ns < timing.probe:
        return
    names = sorted(n for n, ns in silent.items() if ns >= timing.probe or n in urgent)
    if all(watch.clocks[n].warned_ns >= watch.clocks[n].asked_ns for n in names):
        return
    for nodeid in names:
        clock = watch.clocks[nodeid]
        if clock.warned_ns < clock.asked_ns:
            clock.warned_ns = now
            core.health(nodeid, "silent", f"no answer for {silent[nodeid] // 1_000_000} ms to {clock.asks} asks")
    watch.alarm_ns = now
    watch.nonce += 1
    for nodeid in ring.others:
        clock = ask(core, nodeid, now)
        clock.nonce = watch.nonce
        clock.nonce_first = clock.nonce_first or watch.nonce
    core.count("alarms")
    core.send_message(ring.others, Alarm(watch.nonce, tuple(names)), every_link=True)


def vouches(core: Core, processor: Processor, now: int) -> bool:
    """We had a round trip with ``processor`` a moment ago, and it owes us nothing for longer than an answer takes."""
    if core.peers[processor.nodeid].current != processor:
        return False
    clock = core.watch.clocks[processor.nodeid]
    owes = clock.asked_ns and now - clock.asked_ns > max(RTO_MIN_NS, clock.mean_ns + 4 * clock.dev_ns)
    return not owes and now - clock.answered_ns < core.timing.alarm


# --- self-doubt -------------------------------------------------------------------------------------------------------------


def called(core: Core, now: int, deadline: int | None) -> None:
    """The driver calls, and should have called by ``deadline``: time that we slept through is nobody's silence."""
    watch = core.watch
    late = now - max(deadline, watch.forgiven_ns) if deadline is not None else 0
    if late < core.timing.late:
        return
    watch.forgiven_ns = now
    for clock in watch.clocks.values():
        if clock.asked_ns:
            clock.asked_ns = min(clock.asked_ns + late, now)
    for timer in _ACCUSING:
        at = core.timers.get(timer)
        if at is not None:
            core.timers[timer] = at + late
    watch.doubt = min(watch.doubt + 1, DOUBT_MAX)
    watch.doubt_ns = now
    core.count("late")
    if late >= core.timing.alarm:
        core.health(core.local.nodeid, "late", f"this node did not run for {late // 1_000_000} ms")
