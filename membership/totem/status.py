# SPDX-License-Identifier: GPL-2.0-only
"""What the ring knows of itself, as `vcs ring` and the metrics show it: the shape is vcs.report.RingReport. Pure, and only reads."""

from __future__ import annotations

from collections.abc import Mapping

from membership.totem import parked
from membership.totem.core import Core
from membership.totem.history import Change, Names, Teller, Times
from membership.totem.links import LOST_ASKS, Path
from vcs.report import LinkReport, PeerReport, RingChangeReport, RingReport, TokenReport, TrafficReport

DROPS = ("dropped_", "segment_", "frame_incomplete")
"Counters of what arrived and was not used begin so."
LONG_AGO = -(1 << 61)


def report(core: Core, now: int, names: Names, times: Times, io: Mapping[str, int] | None = None) -> RingReport:
    """Everything that can be told now. ``io``: the driver's counters."""
    counters = {**core.counters, **(io or {})}
    history = core.history
    changes = [_change(core, c, now, names, times) for c in history.changes]
    return {
        "engine": "totem",
        "state": core.state.name.lower(),
        "local": core.local.nodeid,
        "ring": str(core.ring.id),
        "members": list(core.ring.nodeids),
        "forming": str(core.forming.ring.id) if core.forming is not None else "",
        "peers": [_peer(core, n, now) for n in core.everybody],
        "claims": sorted(parked.of_ring(core)),
        "links_down": sorted(core.links.down),
        "link_moves": core.links.moves,
        "token": _token(core, counters),
        "traffic": _traffic(core, counters),
        "drops": {name: n for name, n in sorted(counters.items()) if name.startswith(DROPS) and n},
        "counters": dict(sorted(counters.items())),
        "configurations": history.total,
        "changes": changes,
        "why": changes[-1]["why"] if changes else [],
    }


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)


def _ago(at: int, now: int) -> float | None:
    """Milliseconds since ``at``; None: never."""
    return _ms(now - at) if at > LONG_AGO else None


def _peer(core: Core, nodeid: int, now: int) -> PeerReport:
    peer, clock = core.peers[nodeid], core.watch.clocks[nodeid]
    member = core.ring.by_id.get(nodeid)
    paths = core.links.paths[nodeid]
    best = core.links.best[nodeid]
    return {
        "nodeid": nodeid,
        "name": "",
        "member": member is not None,
        "known": peer.current is not None,
        "heard_ms_ago": _ago(peer.heard_ns, now),
        "answered_ms_ago": _ago(clock.answered_ns, now),
        "owes_ms": _ms(now - clock.asked_ns) if clock.asked_ns else 0.0,
        "asks": clock.asks if clock.asked_ns else 0,
        "kept_outside": any(p.nodeid == nodeid for p in core.watch.held),
        "link": best,
        "links": [_link(core, i, path, now) for i, path in enumerate(paths)],
    }


def _link(core: Core, number: int, path: Path, now: int) -> LinkReport:
    state = "up" if path.heard_ns > LONG_AGO else "unused"
    if number in core.links.down:
        state = "down here"
    elif path.waiting > LOST_ASKS:
        state = "silent"
    return {
        "link": number,
        "state": state,
        "rtt_us": round(path.srtt_ns / 1000, 1) if path.srtt_ns else None,
        "loss_percent": round(100 * path.loss, 1) if path.answered else None,
        "asked": path.asked,
        "answered": path.answered,
        "unanswered": path.waiting,
        "heard_ms_ago": _ago(path.heard_ns, now),
        "datagram_max": path.limit,
    }


def _token(core: Core, counters: Mapping[str, int]) -> TokenReport:
    state = core.ring.token
    return {
        "resting_here": state.held is not None,
        "rests_at": core.ring.resting_place,
        "rotation_us": round(core.watch.rotation_ns / 1000, 1) if core.watch.rotation_ns else None,
        "visits": state.seen,
        "retransmits": counters.get("token_retransmits", 0),
        "copies": counters.get("token_copies", 0),
    }


def _traffic(core: Core, counters: Mapping[str, int]) -> TrafficReport:
    ring = core.ring
    return {
        "ordered": ring.high,
        "received": ring.aru,
        "delivered": ring.delivered,
        "safe": ring.safe_upto,
        "stored": len(ring.store),
        "queued": len(core.queue),
        "repaired": counters.get("repaired", 0),
        "frame_copies": counters.get("frame_copies", 0),
        "frame_max": core.frame_size.payload_max,
        "window": core.window,
    }


def _change(core: Core, change: Change, now: int, names: Names, times: Times) -> RingChangeReport:
    before, after = {p.nodeid for p in change.before}, {p.nodeid for p in change.members}
    return {
        "t": change.at,
        "time": times(change.at),
        "age_ms": _ms(now - change.at),
        "ring": str(change.ring),
        "members": sorted(after),
        "came": sorted(after - before),
        "went": sorted(before - after),
        "took_ms": _ms(change.at - change.reasons[0][0]) if change.reasons else 0.0,
        "why": Teller(change, core.local.nodeid, core.links.count, names, times).sentences(),
    }
