# SPDX-License-Identifier: GPL-2.0-only
"""The state that all phases work on, and the few things they all do with it: send, arm a timer, deliver, count.

No clock, socket or randomness: ``now`` (ns, any clock that does not jump) comes in with every event, effects go out as values.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from membership.api import Configuration, EngineEvent, Health, Kind, Message, Processor
from membership.totem.clique import Claim
from membership.totem.flow import FrameSize
from membership.totem.frames import Fragment, Regular
from membership.totem.history import History
from membership.totem.limits import WINDOW, Timing
from membership.totem.links import LinkTable
from membership.totem.packing import Reassembly, SendQueue
from membership.totem.peers import Peer
from membership.totem.ring import Ring
from membership.totem.seal import Sealer
from membership.totem.states import Event, State
from membership.totem.suspects import Clock, Watch
from membership.totem.wire import NO_RING, Body, Entry, encode
from vcs.model import RingId

# --- effects, to be carried out in the order given, each completely before the next ------------------------------------------


class Send(NamedTuple):
    to: tuple[int, ...]
    "Nodeids; one datagram to each."
    data: bytes
    link: int = 0
    "Over which link: an index into every node's addresses."
    spread: bool = False
    "The first sending of an ordered frame: it may go by multicast, and in the largest segments."


class Persist(NamedTuple):
    """Write the ring sequence durably before anything behind this effect is done."""

    ring_seq: int


class Deliver(NamedTuple):
    event: EngineEvent


class DeliverMessages(NamedTuple):
    """Messages that follow each other, in this order."""

    messages: list[Message]


class Note(NamedTuple):
    name: str
    fields: dict[str, object]


Effect = Send | Persist | Deliver | DeliverMessages | Note


@dataclass(frozen=True, slots=True)
class CoreConfig:
    local: Processor
    nodes: tuple[int, ...]
    "Configured nodeids, ascending, ours among them. Others are refused."
    timing: Timing
    ring_seq: int = 0
    "What was persisted; 0 when there is nothing to read."
    links: int = 1
    "How many addresses each node has."
    multicast: bool = False
    "Ordered frames go by multicast."


class Forming:
    """A ring between the commit token and its installation."""

    __slots__ = ("commit_body", "commit_seq", "entries", "exchange", "false_visits", "high_delivered", "install_seq",
                 "obligations", "promised", "queue", "raised_flag", "ring", "started", "trans")

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.commit_seq = 0
        "Highest token_seq of the commit token seen."
        self.commit_body = b""
        "The commit token as we passed it on."
        self.entries: tuple[Entry, ...] = ()
        self.started = False
        "The representative has sent the first regular token."
        # recovery
        self.trans: tuple[Processor, ...] = ()
        "Members that come from our old ring."
        self.obligations = 0
        "Mask over the old ring's members whose messages we deliver behind a hole."
        self.high_delivered = 0
        "Highest frame that one of ``trans`` delivered: safe ones up to it are safe."
        self.queue: dict[int, Regular] = {}
        "Old frames that others may lack and nobody has sent again yet, by seq."
        self.exchange = True
        self.raised_flag = False
        self.false_visits = 0
        self.install_seq = 0
        self.promised = False


class Core:
    """The engine's state. Phases (operational, gather, commit, recovery) are modules of functions on it."""

    def __init__(self, config: CoreConfig, sealer: Sealer) -> None:
        self.local = config.local
        self.nodes = config.nodes
        self.timing = config.timing
        self.sealer = sealer
        self.state = State.OPERATIONAL
        self.ring_seq = config.ring_seq
        "Highest persisted ring sequence."
        self.known_seq = config.ring_seq
        "Highest one that anybody told."
        self.peers = {n: Peer(n) for n in config.nodes if n != config.local.nodeid}
        self.everybody = tuple(self.peers)
        self.links = LinkTable(self.everybody, config.links, config.multicast)
        self.arrived_on = 0
        "Link of the datagram that is being handled: an answer goes back the same way."
        self.queue = SendQueue()
        self.frame_size = FrameSize()
        self.window = WINDOW
        "Units that our receive buffer takes in one rotation."
        self.reassembly = Reassembly()
        self.ring = Ring(NO_RING, (config.local,), config.local)
        self.ring_heard_ns = -(1 << 62)
        "When the token of the installed ring last proved that all members hear each other."
        self.forming: Forming | None = None
        self._gathering()
        self.watch = Watch(self.everybody)
        self.history = History()
        self.attempt = NO_RING
        self.obligations = 0
        self.suspect: Processor | None = None
        "Who fails to receive."
        self.rotation_ns = -(1 << 62)
        self.timers: dict[Event, int] = {}
        self.counters: Counter[str] = Counter()
        self.raised: list[Event] = []
        self.out: list[Effect] = []

    def _gathering(self) -> None:
        """What this node knows and thinks while it gathers."""
        # the sets only grow until a ring is installed
        self.proc: set[Processor] = {self.local}
        self.fail: set[Processor] = set()
        self.claims: set[Claim] = set()
        "Who has no round trip with whom, by the word of one of the two."
        self.vouched: set[Processor] = set()
        "Of those that somebody claims not to reach: who has been heard in this gathering."
        self.choice: tuple[Processor, ...] = (self.local,)
        "With whom we are ready to form a ring,"
        self.chosen_first = True
        "whether that is the largest of the rings that will be,"
        self.chosen_ns = 0
        "and since when."
        self.joins: dict[Processor, tuple[int, tuple[Processor, ...]]] = {}
        "What others told in this gathering: number of their last Join and their choice."
        self.join_seq = 0
        "Number of our last Join; one more for each that says something new."
        self.join_due = False
        "It has not been sent to everybody yet."
        self.join_ns = -(1 << 62)
        self.join_space_ns = 0
        self.join_pause_ns = 0
        "Shortest times to the next Join that says something new, and to one that repeats."

    def set_nodes(self, nodes: tuple[int, ...]) -> None:
        """Who is configured. What is known of others stays as long as a ring may name them."""
        for nodeid, peer in list(self.peers.items()):
            peer.configured = nodeid in nodes
            if not peer.configured and self.state is State.OPERATIONAL and nodeid not in self.ring.by_id:
                del self.peers[nodeid], self.watch.clocks[nodeid]
                self.links.remove(nodeid)
                self.watch.forget(nodeid)
        for nodeid in nodes:
            if nodeid != self.local.nodeid and nodeid not in self.peers:
                self.peers[nodeid] = Peer(nodeid)
                self.watch.clocks[nodeid] = Clock()
                self.links.add(nodeid)
        self.nodes = nodes
        self.everybody = tuple(n for n in nodes if n != self.local.nodeid)

    # --- small verbs --------------------------------------------------------------------------------------------------------

    def send(self, to: tuple[int, ...], body: bytes, every_link: bool = False, link: int = -1, spread: bool = False) -> None:
        """Seal once and send to each of ``to``: over its best link, over every link (the receiver takes the first copy), or over
        ``link``. ``spread``: see Send."""
        if not to:
            return
        data = self.sealer.seal(body)
        links = self.links
        if link >= 0:
            self.out.append(Send(to, data, link))
        elif every_link:
            self.out.extend(Send(to, data, i) for i in range(links.count))
        elif links.common >= 0:
            self.out.append(Send(to, data, links.common, spread))
        else:
            self.out.extend(Send(peers, data, i, spread) for i, peers in links.route(to))
        if spread:
            links.frames += 1

    def send_message(self, to: tuple[int, ...], message: Body, every_link: bool = False, link: int = -1) -> None:
        self.send(to, encode(message), every_link, link)

    def persist(self, ring_seq: int) -> None:
        self.ring_seq = ring_seq
        self.known_seq = max(self.known_seq, ring_seq)
        self.out.append(Persist(ring_seq))

    def count(self, reason: str) -> None:
        self.counters[reason] += 1

    def note(self, name: str, **fields: object) -> None:
        self.out.append(Note(name, fields))

    def health(self, nodeid: int, what: str, detail: str = "", engine: int = 0) -> None:
        self.out.append(Deliver(Health(nodeid, what, detail, engine)))
        clock = self.watch.clocks.get(nodeid)
        if clock is not None and clock.asked_ns:
            self.history.noticed(nodeid, what, detail, clock.asked_ns, clock.asks, clock.refused)
        else:
            self.history.noticed(nodeid, what, detail)

    def raise_(self, event: Event) -> None:
        """An internal event, handled by the table when the current action has ended."""
        self.raised.append(event)

    def set_state(self, state: State, why: str) -> None:
        if state is not self.state:
            self.note("totem_state", before=self.state.name, after=state.name, why=why)
            self.state = state

    def arm(self, timer: Event, at: int) -> None:
        self.timers[timer] = at

    def cancel(self, *timers: Event) -> None:
        for timer in timers:
            self.timers.pop(timer, None)

    def knows(self, processors: tuple[Processor, ...]) -> bool:
        """All of them are of configured nodes."""
        peers, me = self.peers, self.local.nodeid
        return all(p.nodeid in peers or p.nodeid == me for p in processors)

    # --- who is heard -------------------------------------------------------------------------------------------------------

    def heard(self, now: int) -> tuple[Processor, ...]:
        """Processors heard lately, ascending: members of the ring by its token, others by their own frames."""
        since = now - self.timing.heard
        heard = set()
        for peer in self.peers.values():
            if peer.candidate is not None and peer.candidate_ns >= since:
                heard.add(peer.candidate)
            if peer.current is None:
                continue
            in_ring = self.ring_heard_ns >= since and self.ring.by_id.get(peer.nodeid) == peer.current
            if peer.heard_ns >= since or in_ring:
                heard.add(peer.current)
        return tuple(sorted(heard))

    # --- delivery -----------------------------------------------------------------------------------------------------------

    def emit(self, ring: Ring, frame: Regular) -> None:
        """The application messages that end in ``frame``, upwards, together with those just before them. ``ring`` names the
        configuration they were sent in."""
        if frame.inner is not None:
            return
        content = frame.content()
        if isinstance(content, Fragment):
            whole = self.reassembly.feed(frame.origin, content)
            content = () if whole is None else (whole,)
        else:
            self.reassembly.drop(frame.origin)
        if not content:
            return
        out = self.out
        last = out[-1] if out else None
        if not isinstance(last, DeliverMessages):
            last = DeliverMessages([])
            out.append(last)
        messages = last.messages
        sender, seq, ring_id = ring.by_id[frame.origin], frame.seq, ring.id
        messages.extend([Message(sender, ring_id, seq, payload) for payload in content])

    def deliver_contiguous(self, ring: Ring, safe_upto: int) -> None:
        """What is contiguous, up to the first safe frame beyond ``safe_upto``."""
        store = ring.store
        while (frame := store.get(ring.delivered + 1)) is not None:
            if frame.safe and frame.seq > safe_upto:
                break
            ring.delivered += 1
            self.emit(ring, frame)

    def configure(self, kind: Kind, ring: RingId, members: tuple[Processor, ...]) -> None:
        """Called for a regular one while ``self.ring`` is still the one before."""
        self.out.append(Deliver(Configuration(kind, ring, members)))
        if kind is Kind.REGULAR:
            before = self.ring.members if self.ring.id.seq else ()
            self.history.installed(ring, members, before, self.claims, self.vouched, self.fail)
