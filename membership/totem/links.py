# SPDX-License-Identifier: GPL-2.0-only
"""Which link to use to which peer: evidence per (peer, link) in, the best link out. Pure; part of the core.

A link is a network that all nodes are on: link i joins the i-th address of every node. Normal traffic to a peer takes one link, the
*best* one; what must arrive now (retransmissions, Joins, probes) takes every link. Links fail without a word, so evidence decides:

- an answer on another link than the best one, while the best one owes one, moves the peer over at once;
- a peer that speaks on another link only has found the best one dead: follow it (FOLLOW_FRAMES frames);
- our own end of a link that is down (the driver is told by the kernel) is left at once;
- a link earlier in the configuration is taken again when it answered for a while; longer each time it broke (damping), so that a
  flapping link costs nothing but its own frames.

No configuration changes by any of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from membership.totem.limits import (
    DATAGRAM_MAX,
    LINK_CHECK_NS,
    LINK_RETURN_MAX_NS,
    LINK_RETURN_NS,
    LOST_SAMPLE,
    NEWS_MAX,
    SEGMENT_PAYLOAD_MIN,
    SMALL_SEGMENT,
    STEPS_DOWN,
)

NEVER = -(1 << 62)
FOLLOW_FRAMES = 3
"Fresh frames in a row on another link, none on the best one, before we follow the peer."
LOSS_MEMORY = 64
"Answers over which the loss is smoothed."
LOST_ASKS = 2
"Unanswered asks in a row on a link before it counts as failed for people, and before we follow nobody to it."


class Path:
    """One peer over one link."""

    __slots__ = ("answered", "answered_ns", "asked", "asked_ns", "broke_ns", "ceiling", "counter", "failed", "heard_ns", "kernel",
                 "limit", "loss", "lost", "lost_large", "row", "rttvar_ns", "sent_mark", "srtt_ns", "steady_ns", "waiting")

    def __init__(self) -> None:
        self.counter = 0
        "Highest frame counter of the peer seen on this link: copies and replays prove nothing."
        self.heard_ns = NEVER
        self.limit = DATAGRAM_MAX
        "The largest datagram that passes, UDP payload in bytes; longer frames go in segments. The lower one of"
        self.kernel = DATAGRAM_MAX
        "what the kernel believes,"
        self.ceiling = DATAGRAM_MAX
        "and what has passed where the kernel knows no better."
        self.lost = 0
        self.lost_large = 0
        "Frames, and those among them longer than SMALL_SEGMENT, that the peer missed since ``sent_mark``."
        self.sent_mark = 0
        self.row = 0
        "Fresh frames here since the last one on another link."
        self.asked = 0
        self.answered = 0
        "Asks and answers since the start, for the loss shown to people."
        self.asked_ns = NEVER
        self.answered_ns = NEVER
        self.waiting = 0
        "Asks since the last answer."
        self.loss = 0.0
        "Part of the asks that went without an answer lately (0 to 1), for people."
        self.failed = False
        "Nothing comes back on it, which people were told."
        self.srtt_ns = 0
        "Smoothed round trip, 0: none measured."
        self.rttvar_ns = 0
        self.broke_ns = NEVER
        "When this link was last left because it failed."
        self.steady_ns = LINK_RETURN_NS
        "How long it must answer before it is preferred again."

    def set_limit(self) -> None:
        self.limit = max(min(self.kernel, self.ceiling), SEGMENT_PAYLOAD_MIN)

    def status(self) -> dict[str, int]:
        return {"asked": self.asked, "answered": self.answered, "unanswered": self.waiting, "rtt_us": self.srtt_ns // 1000,
                "segment": self.limit}

    def measured(self, rtt_ns: int) -> None:
        """RFC 6298, section 2."""
        if not self.srtt_ns:
            self.srtt_ns, self.rttvar_ns = rtt_ns, rtt_ns // 2
        else:
            self.rttvar_ns += (abs(self.srtt_ns - rtt_ns) - self.rttvar_ns) // 4
            self.srtt_ns += (rtt_ns - self.srtt_ns) // 8


class LinkTable:
    """The links of one node to its peers."""

    def __init__(self, peers: Iterable[int], count: int, multicast: bool = False) -> None:
        self.count = count
        self.multicast = multicast
        self.checked_ns = NEVER
        "When the links that carry nothing were last tried."
        self.news: list[tuple[int, int]] = []
        "(peer, link) that failed or came back, for people."
        self.doubtful: set[int] = set()
        "Peers that missed something: perhaps their best link has failed, which a question on every link will show."
        self.deaf: set[int] = set()
        "Peers that multicast does not reach."
        self.frames = 0
        "Ordered frames that went to all."
        self.steps = 0
        self.down: set[int] = set()
        "Links whose own end is down."
        self.paths: dict[int, tuple[Path, ...]] = {}
        self.best: dict[int, int] = {}
        self.common = 0
        "The best link of all peers if it is one, else -1."
        self.moves = 0
        for nodeid in peers:
            self.add(nodeid)

    def add(self, nodeid: int) -> None:
        self.paths[nodeid] = tuple(Path() for _ in range(self.count))
        self.best[nodeid] = min((link for link in range(self.count) if link not in self.down), default=0)
        self._summarise()

    def remove(self, nodeid: int) -> None:
        self.paths.pop(nodeid, None)
        self.best.pop(nodeid, None)
        self.deaf.discard(nodeid)
        self.doubtful.discard(nodeid)
        self._summarise()

    def forget(self, nodeid: int) -> None:
        """Another incarnation took the seat: its counters begin again."""
        for path in self.paths[nodeid]:
            path.counter = 0

    def route(self, to: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(link, peers) pairs that reach all of ``to`` over their best links."""
        if self.common >= 0:
            yield self.common, to
            return
        groups: dict[int, list[int]] = {}
        for nodeid in to:
            groups.setdefault(self.best.get(nodeid, 0), []).append(nodeid)
        for link, members in groups.items():
            yield link, tuple(members)

    # --- evidence -----------------------------------------------------------------------------------------------------------

    def heard(self, nodeid: int, link: int, counter: int, now: int) -> None:
        """An authenticated frame of the peer's current incarnation came in on ``link``."""
        paths = self.paths[nodeid]
        if link >= len(paths):
            return
        path = paths[link]
        if counter <= path.counter:
            return
        path.counter = counter
        path.heard_ns = now
        if self.count == 1:
            return
        path.row += 1
        best = self.best[nodeid]
        if link == best:
            for other in paths:
                if other is not path:
                    other.row = 0
        else:
            paths[best].row = 0
            if path.row >= FOLLOW_FRAMES and link not in self.down and not path.waiting >= LOST_ASKS:
                self._leave_best(nodeid, link, now)

    def asked(self, nodeid: int, link: int, now: int) -> None:
        """Something that demands an answer goes to the peer over ``link``."""
        paths = self.paths.get(nodeid)
        if paths is None:
            return
        path = paths[link]
        path.asked += 1
        path.waiting += 1
        path.asked_ns = now
        if path.waiting > LOST_ASKS and not path.failed:
            self._news(nodeid, link, True)

    def neutral(self, nodeid: int) -> None:
        """The peer answered, and nobody knows on which link it was asked: no link owes anything."""
        for path in self.paths.get(nodeid, ()):
            path.waiting = 0

    def answered(self, nodeid: int, link: int, now: int, rtt_ns: int | None = None) -> None:
        """The answer to an ask came in on ``link``; ``rtt_ns`` if it is known which ask it answers."""
        paths = self.paths.get(nodeid)
        if paths is None or link >= len(paths):
            return
        path = paths[link]
        path.answered += 1
        unanswered = (path.waiting - 1) / path.waiting if path.waiting > 1 else 0.0
        path.loss += (unanswered - path.loss) / LOSS_MEMORY
        path.waiting = 0
        path.answered_ns = now
        if path.failed:
            self._news(nodeid, link, False)
        if rtt_ns is not None:
            path.measured(rtt_ns)
        best = self.best[nodeid]
        if link == best or link in self.down:
            return
        if paths[best].waiting or best in self.down:
            self._leave_best(nodeid, link, now)
        elif link < best and now - path.broke_ns >= path.steady_ns:
            self._move(nodeid, link)

    def mtu(self, nodeid: int, link: int, size: int) -> None:
        """The kernel says, now and from time to time, how many bytes a datagram to the peer may have. What was given up because
        nothing came through is tried again."""
        if nodeid not in self.paths or link >= self.count:
            return
        path = self.paths[nodeid][link]
        path.kernel = size
        if path.ceiling < DATAGRAM_MAX:
            path.ceiling = min((s for s in STEPS_DOWN if s > path.ceiling), default=DATAGRAM_MAX)
        path.set_limit()
        self.deaf.discard(nodeid)

    def lost(self, nodeid: int, size: int) -> None:
        """The peer has missed a frame of ``size`` bytes, which was not the fault of chance if it misses nearly all of them: multicast
        does not reach it, or large segments vanish on the way and nobody says so (a black hole)."""
        paths = self.paths.get(nodeid)
        if paths is None:
            return
        if self.count > 1:
            self.doubtful.add(nodeid)
        path = paths[self.best[nodeid]]
        if not path.lost:
            path.sent_mark, path.lost_large = self.frames - 1, 0
        path.lost += 1
        path.lost_large += size > SMALL_SEGMENT
        if path.lost < LOST_SAMPLE:
            return
        sent, lost, large = self.frames - path.sent_mark, path.lost, path.lost_large
        path.lost = 0
        if lost * 2 < sent:
            return
        if self.multicast and nodeid not in self.deaf:
            self.deaf.add(nodeid)
        elif large * 2 >= lost:
            path.ceiling = max((s for s in STEPS_DOWN if s < path.limit), default=SEGMENT_PAYLOAD_MIN)
            path.set_limit()
            self.steps += 1

    def own_end(self, link: int, up: bool, now: int) -> None:
        """The kernel says that our own end of ``link`` is up or down."""
        if up:
            self.down.discard(link)
            return
        self.down.add(link)
        others = [i for i in range(self.count) if i not in self.down]
        if not others:
            return  # all are down: keep what there is
        for nodeid, best in list(self.best.items()):
            if best == link:
                paths = self.paths[nodeid]
                self._leave_best(nodeid, max(others, key=lambda i: (paths[i].answered_ns, paths[i].heard_ns, -i)), now)

    def status(self) -> dict[str, object]:
        """For people: JSON-able."""
        return {
            "down": sorted(self.down), "deaf": sorted(self.deaf), "moves": self.moves, "steps": self.steps,
            "peers": {str(nodeid): {"best": self.best[nodeid], "paths": [path.status() for path in paths]}
                      for nodeid, paths in self.paths.items()},
        }

    def _news(self, nodeid: int, link: int, failed: bool) -> None:
        self.paths[nodeid][link].failed = failed
        if self.count > 1 and len(self.news) < NEWS_MAX:
            self.news.append((nodeid, link))

    def told(self) -> list[tuple[int, int, bool]]:
        """(peer, link, it works): what changed since the last call, of peers that are reached on another link."""
        news, self.news = dict.fromkeys(self.news), []
        return [(n, link, not self.paths[n][link].failed) for n, link in news
                if n in self.paths and any(not p.failed for p in self.paths[n])]

    def to_check(self, neighbours: Iterable[int], others: Iterable[int], now: int) -> set[int]:
        """Whom to ask on every link now: so that a spare link that failed is known before it is needed, and one that came back is
        used again. Costs a node the same whatever the size of the ring, unless links are broken."""
        if self.count == 1 or now - self.checked_ns < LINK_CHECK_NS:
            return set()
        self.checked_ns = now
        return {*neighbours, *(n for n in others if self.best.get(n, 0) or any(p.failed for p in self.paths.get(n, ())))}

    # --- moving -------------------------------------------------------------------------------------------------------------

    def _leave_best(self, nodeid: int, link: int, now: int) -> None:
        """The best link failed: it has to prove itself for longer each time this happens."""
        path = self.paths[nodeid][self.best[nodeid]]
        quiet = now - path.broke_ns
        path.steady_ns = LINK_RETURN_NS if quiet > 2 * LINK_RETURN_MAX_NS else min(2 * path.steady_ns, LINK_RETURN_MAX_NS)
        path.broke_ns = now
        self._move(nodeid, link)

    def _move(self, nodeid: int, link: int) -> None:
        self.best[nodeid] = link
        self.moves += 1
        for path in self.paths[nodeid]:
            path.row = 0
        self._summarise()

    def _summarise(self) -> None:
        links = set(self.best.values())
        self.common = links.pop() if len(links) == 1 else 0 if not links else -1
