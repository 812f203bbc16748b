# SPDX-License-Identifier: GPL-2.0-only
"""What follows from silence (watch.py keeps the clocks): who is asked again, when the alarm is raised, when a verdict is reached.

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
from membership.totem.control import Alarm
from membership.totem.core import Core
from membership.totem.limits import ASKS_MIN, DOUBT_DECAY_NS, DOUBT_MAX, LINK_CHECK_NS, REFUSED_MIN, REFUSED_NS, RTO_MIN_NS
from membership.totem.ring import Ring
from membership.totem.states import Event
from membership.totem.suspects import TO_ALL, Clock
from membership.totem.watch import ask, probe, quiet, ring_of, scope_of, wake

_ACCUSING = (Event.TOKEN_LOSS, Event.CONSENSUS_TIMER, Event.COMMIT_WAIT)
"Timers whose end says something about others."


def on_timer(core: Core, _sender: object, _message: object, now: int) -> None:
    """Ask who has to be asked, judge, and say when to look again."""
    watch, step = core.watch, core.timing.probe
    if watch.doubt and now - watch.doubt_ns >= DOUBT_DECAY_NS:
        watch.doubt -= 1
        watch.doubt_ns = now
    scope = scope_of(core)
    ring = ring_of(core)
    targets = {n for n in scope if watch.clocks[n].asked_ns}
    for nodeid, until in list(watch.alarmed.items()):
        if until <= now or nodeid not in scope:
            del watch.alarmed[nodeid]
        else:
            targets.add(nodeid)
    at = now + step if targets else now + 8 * step
    checks: set[int] = set()
    if ring is not None and ring.others:
        waited = now - watch.progress_ns
        if ring.token.held is None and waited >= quiet(core):
            targets |= {ring.successor, ring.predecessor}
            at = now + step
        else:
            at = min(at, watch.progress_ns + quiet(core))
        if core.links.count > 1:
            checks = core.links.to_check((ring.successor, ring.predecessor), ring.others, now)
            at = min(at, core.links.checked_ns + LINK_CHECK_NS)
            for nodeid, link, works in core.links.told():
                core.health(nodeid, "link_up" if works else "link_down", f"link {link} to node {nodeid}")
    elif ring is None:
        targets |= _unheard(core, now)
        at = now + step
    for nodeid in sorted(targets | checks):
        # The successor is asked by each token, on its best link: that says nothing about the others.
        if nodeid in checks or now - watch.clocks[nodeid].last_ns >= step:
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
    held = {p.nodeid for p in watch.held}
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
    ring = ring_of(core)
    if ring is not None:
        _alarm(core, ring, silent, now)


def _verdict(core: Core, nodeid: int, silent: int, now: int) -> None:
    watch = core.watch
    clock = watch.clocks[nodeid]
    ring = ring_of(core)
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
    number = watch.number(core.local, TO_ALL)
    for nodeid in ring.others:
        clock = ask(core, nodeid, now)
        clock.nonce, clock.probe_ns = number, now
        if not clock.nonce_first:
            clock.nonce_first, clock.first_ns = number, now
    core.count("alarms")
    core.send_message(ring.others, Alarm(number, tuple(names)), every_link=True)


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
