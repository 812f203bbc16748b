# SPDX-License-Identifier: GPL-2.0-only
"""Which incarnation of a node is believed, when a second one speaks.

Whoever names us in a Join or a beacon is there now, or was there not long ago: a former life named us, too, and its frame may come
late. Believed, it would retire who lives, and for good. So the one that holds the seat is asked, and keeps it until it has not
answered for the alarm time; then the claimant sits down, without having to speak again. Only an answer counts: what is merely heard
of the holder may have been held back on its way, by anybody. Who left, or died with a last gasp, holds nothing.
"""

from __future__ import annotations

from membership.totem import gather, watch
from membership.totem.core import Core
from membership.totem.peers import Peer


def claim(core: Core, peer: Peer, named: bool, now: int) -> bool:
    """The candidate speaks (``named``: and names us). True: the seat is its own from now on."""
    if peer.current is not None:
        clock = core.watch.clocks[peer.nodeid]
        if peer.contest(clock.answered_ns, now) < core.timing.alarm:
            if now - clock.last_ns >= core.timing.probe:
                watch.probe(core, peer.nodeid, now)
            if named:
                peer.named_ns = now
                core.watch.contests.add(peer.nodeid)
                watch.wake(core, peer.contested_ns + core.timing.alarm)
            return False
    if named:
        _promote(core, peer, now)
    return named


def settle(core: Core, now: int) -> None:
    """Time has passed: whose holder has not answered sits down; whose holder has, does not."""
    for nodeid in sorted(core.watch.contests):
        peer = core.peers.get(nodeid)
        if peer is None:
            core.watch.contests.discard(nodeid)
            continue
        lost = peer.candidate is None or peer.current is None or core.watch.clocks[nodeid].answered_ns >= peer.contested_ns
        if not lost and now - peer.contested_ns < core.timing.alarm:
            watch.wake(core, peer.contested_ns + core.timing.alarm)
            continue
        core.watch.contests.discard(nodeid)
        if not lost and peer.named_ns >= peer.contested_ns:
            _promote(core, peer, now)


def _promote(core: Core, peer: Peer, now: int) -> None:
    peer.promote(now)
    core.links.forget(peer.nodeid)
    # It may not know yet that we hear it: without a frame of ours that names it, it would refuse our commit token.
    gather.greet(core, peer, now)
