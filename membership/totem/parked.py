# SPDX-License-Identifier: GPL-2.0-only
"""Claims that outlive a gathering: who stays outside because some member has no round trip with it, and for how long.

A claim is its maker's alone: it keeps asking, and takes the claim back when the answers have been steady for a while, longer each
time the same node comes back and fails again (HOLD_MIN_NS, doubled up to HOLD_MAX_NS). Members tell each other what they take back
(Links), rings tell each other in their beacons. As long as a claim stands between a ring and an outsider, neither acts on what the
other announces: a link that works in one direction, or for some only, costs one configuration and not one after another.
"""

from __future__ import annotations

from collections.abc import Iterable

from membership.api import Processor
from membership.totem.control import Links
from membership.totem.core import Core
from membership.totem.limits import (
    FORGIVE_NS,
    HOLD_MAX_NS,
    HOLD_MIN_NS,
    HOLD_PROBE_MAX_NS,
    HOLD_PROBE_MIN_NS,
    LINKS_QUERY_NS,
    SETTLE_NS,
)
from membership.totem.states import State
from membership.totem.suspects import Held
from membership.totem.wire import Beacon

Pair = tuple[int, int]


def hold(core: Core, processor: Processor, now: int) -> None:
    """We have no round trip with ``processor``."""
    watch = core.watch
    if processor in watch.held:
        return
    strikes, since = watch.strikes.get(processor.nodeid, (0, 0))
    strikes = strikes + 1 if since and now - since < FORGIVE_NS else 0
    watch.held[processor] = Held(min(HOLD_MIN_NS << min(strikes, 16), HOLD_MAX_NS), strikes, now + HOLD_PROBE_MIN_NS)


def release(core: Core, processor: Processor, now: int) -> None:
    """The claim is taken back (or void), and the ring is told."""
    held = core.watch.held.pop(processor, None)
    if held is None:
        return
    core.watch.strikes[processor.nodeid] = (held.strikes, now)
    core.watch.changed_ns = now
    core.count("claims_released")
    if core.state is State.OPERATIONAL:
        core.send_message(core.ring.others, Links(own(core)))


def answered(core: Core, processor: Processor, now: int) -> None:
    """A round trip with somebody of whom we claim that there is none."""
    held = core.watch.held[processor]
    if not held.good_ns:
        held.good_ns = now
    if now - held.good_ns >= held.hold_ns:
        release(core, processor, now)
    else:
        held.pause_ns = HOLD_PROBE_MIN_NS
        held.next_ns = now + HOLD_PROBE_MIN_NS


def due(core: Core, now: int) -> list[int]:
    """Nodes to be asked now because of a claim of ours; each is asked less and less often while it does not answer."""
    nodeids = []
    for processor, held in list(core.watch.held.items()):
        peer = core.peers[processor.nodeid]
        if peer.current not in (None, processor) or processor in peer.retired:
            # It left, or another incarnation took the seat: that one has its own chance, and the ring must not believe the claim.
            del core.watch.held[processor]
            if core.state is State.OPERATIONAL:
                core.send_message(core.ring.others, Links(own(core)))
            continue
        if held.next_ns > now:
            continue
        if core.watch.clocks[processor.nodeid].asked_ns:
            held.good_ns = 0
            held.pause_ns = min(2 * held.pause_ns, HOLD_PROBE_MAX_NS)
        held.next_ns = now + held.pause_ns
        nodeids.append(processor.nodeid)
    return nodeids


def own(core: Core) -> tuple[int, ...]:
    return tuple(sorted({p.nodeid for p in core.watch.held}))


def of_ring(core: Core) -> set[Pair]:
    """The claims of our ring's members about nodes outside, as far as we know them."""
    claims = {(core.local.nodeid, nodeid) for nodeid in own(core)}
    for member, nodeids in core.watch.told.items():
        claims |= {(member, nodeid) for nodeid in nodeids}
    return claims


def beacon(core: Core, now: int) -> Beacon:
    """What our ring tells those outside, or the one that is being formed: it is nearly there."""
    if core.forming is None:
        ring, claims = core.ring, of_ring(core)
    else:
        ring = core.forming.ring
        claims = {(p.nodeid, q.nodeid) for p, q in core.claims if q not in ring.members}
    at = {nodeid: 1 << i for i, nodeid in enumerate(ring.nodeids)}
    apart: dict[int, int] = {}
    for member, outsider in claims:
        apart[outsider] = apart.get(outsider, 0) | at.get(member, 0)
    return Beacon(ring.id, ring.nodeids, tuple(sorted((q, m) for q, m in apart.items() if m)), core.heard(now))


def heard_beacon(core: Core, nodeid: int, message: Beacon, now: int) -> bool:
    """An outsider's beacon: whether a gathering with it is worthwhile."""
    watch = core.watch
    if watch.apart.get(nodeid, ()) != message.apart:
        watch.apart[nodeid] = message.apart
        watch.changed_ns = now
    return worthwhile(core, nodeid, message.members, pairs(message), now)


def pairs(message: Beacon) -> list[Pair]:
    members = message.members
    return [(members[i], q) for q, mask in message.apart for i in range(len(members)) if mask >> i & 1]


def worthwhile(core: Core, nodeid: int, members: tuple[int, ...], claims: Iterable[Pair], now: int) -> bool:
    """Whether a gathering with the outsider ``nodeid``, of the ring of ``members``, can end in a ring larger than both.

    Without claims between the two rings it will. With some it can if the outsider may be added to our ring, or we to its; but not
    while claims change, as they do one after another when a fault ends. The largest ring grows with each such step, so the steps end.
    """
    known = of_ring(core) | set(claims)
    apart = known | {(q, p) for p, q in known}
    ours, me = core.ring.nodeids, core.local.nodeid
    theirs = {*members, nodeid}
    if not any(p in theirs and q in core.ring.by_id for p, q in apart):
        return True
    if any((nodeid, m) in apart for m in ours):
        _verify(core, nodeid, now)
        fits = False
    else:
        fits = len(ours) + 1 > len(theirs)
    joins = len(theirs) + 1 > len(ours) and not any((me, m) in apart for m in theirs)
    return (fits or joins) and now - core.watch.changed_ns >= SETTLE_NS


def _verify(core: Core, nodeid: int, now: int) -> None:
    """What a member told once may have changed, and the word been lost: ask it, now and then."""
    watch = core.watch
    makers = tuple(m for m, nodeids in sorted(watch.told.items()) if nodeid in nodeids)
    if makers and now - watch.verified_ns >= LINKS_QUERY_NS:
        watch.verified_ns = now
        core.send_message(makers, Links(own(core), reply=True))


def it_speaks(core: Core, processor: Processor, now: int) -> None:
    """A probe of somebody of whom we claim that there is no round trip: perhaps there is one again."""
    held = core.watch.held.get(processor)
    if held is not None and not held.good_ns and held.pause_ns > HOLD_PROBE_MIN_NS:
        held.pause_ns = HOLD_PROBE_MIN_NS
        held.next_ns = now


def on_links(core: Core, sender: Processor, message: Links, now: int) -> None:
    if core.ring.by_id.get(sender.nodeid) != sender:
        core.count("foreign")
        return
    if core.watch.told.get(sender.nodeid, frozenset()) != frozenset(message.nodeids):
        core.watch.told[sender.nodeid] = frozenset(message.nodeids)
        core.watch.changed_ns = now
    if message.reply:
        # To everybody: each member tells outsiders what it believes, and would bring a claim that is long void back to life.
        core.send_message(core.ring.others, Links(own(core)))


def installed(core: Core, now: int) -> None:
    """A ring is installed: what was claimed about members is void, what members claimed about others is remembered."""
    ring = core.ring
    for processor in [p for p in core.watch.held if ring.by_id.get(p.nodeid) == p]:
        held = core.watch.held.pop(processor)
        core.watch.strikes[processor.nodeid] = (held.strikes, now)
    told: dict[int, set[int]] = {}
    for p, q in core.claims:
        if p != core.local and ring.by_id.get(p.nodeid) == p and q.nodeid not in ring.by_id:
            told.setdefault(p.nodeid, set()).add(q.nodeid)
    core.watch.told = {member: frozenset(nodeids) for member, nodeids in told.items()}
    core.watch.apart.clear()
    core.claims.clear()
    core.vouched.clear()
