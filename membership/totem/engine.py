# SPDX-License-Identifier: GPL-2.0-only
"""The Totem core: bytes, time and requests in, effects out. The driver (real sockets) and the simulator run this same code.

Contract of whoever drives it:
- the effects of a call are carried out in order, each completely before the next, and before those of a later call (but what a
  ``submit`` delivers at once may go up before its frames are sent: agreed order promises nothing about others);
- all datagrams that wait are handed over before ``tick``, so that a late process does not take its own lateness for others' silence;
- ``tick`` is called when ``deadline()`` has come (being early or late is harmless);
- ``now`` never goes back (CLOCK_BOOTTIME, in ns).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from membership.api import Kind, Order, Processor
from membership.totem import commit, gather, operational, recovery, seats, status, verdict, watch
from membership.totem.control import Alarm, Links, Probe, ProbeAck, TokenAck
from membership.totem.core import Core, CoreConfig, Effect
from membership.totem.frames import Piece, Regular, Token
from membership.totem.history import Names, Times
from membership.totem.limits import LEAVE_COPIES, MEMBERS_MAX, MESSAGE_MAX, PROCESSORS_MAX, RING_SEQ_JUMP_MAX, RING_SEQ_STEP
from membership.totem.peers import Peer, ReplayWindow
from membership.totem.ring import Ring
from membership.totem.seal import FrameError, Sealer
from membership.totem.states import TABLE, TIMERS, Event, State
from membership.totem.wire import Beacon, Body, Commit, Hurry, Join, Leave, decode, encode
from vcs.errors import ConfigError, RemoteError
from vcs.model import RingId

if TYPE_CHECKING:
    from vcs.report import RingReport

Action = Callable[[Core, Any, Any, int], None]

_MODULES = {"operational": operational, "gather": gather, "commit": commit, "recovery": recovery, "verdict": verdict}
_EVENT_OF: dict[type, Event] = {
    Join: Event.JOIN, Commit: Event.COMMIT_TOKEN, Beacon: Event.BEACON, Leave: Event.LEAVE, Hurry: Event.HURRY,
}


_ORDERED = (Token, Regular, Piece)
_CONTROL = (Probe, ProbeAck, TokenAck, Alarm, Links)


def _ignored(core: Core, _sender: object, _message: object, _now: int) -> None:
    core.counters["ignored"] += 1


def bind_table() -> tuple[tuple[Action, ...], ...]:
    """The table with its actions bound: ``rows[state][event]``."""

    def bind(state: State, event: Event) -> Action:
        action = TABLE[state, event].action
        if not action:
            return _ignored
        module, function = action.split(".")
        bound: Action = getattr(_MODULES[module], function)
        return bound

    return tuple(tuple(bind(state, event) for event in Event) for state in State)


class TotemCore:
    """One processor of the ring."""

    def __init__(self, config: CoreConfig, sealer: Sealer) -> None:
        if config.local.nodeid not in config.nodes or len(config.nodes) > MEMBERS_MAX:
            raise ConfigError([f"node {config.local.nodeid} must be one of at most {MEMBERS_MAX} configured nodes"])
        self.core = Core(config, sealer)
        self._rows = bind_table()
        self._closed = False

    # --- what the driver calls ----------------------------------------------------------------------------------------------

    def start(self, now: int) -> list[Effect]:
        """Install the ring of this node alone, and look for others."""
        core = self.core
        ring_id = RingId(core.ring_seq + RING_SEQ_STEP, core.local.nodeid)
        core.persist(ring_id.seq)
        core.configure(Kind.REGULAR, ring_id, (core.local,))
        core.ring = Ring(ring_id, (core.local,), core.local)
        core.arm(Event.HOLD_TIMER, now + core.timing.hold)
        if core.everybody:
            core.arm(Event.MERGE_TIMER, now)
        return self._effects(now)

    def datagram(self, data: bytes | memoryview, now: int, link: int = 0) -> list[Effect]:
        """A frame that came in on ``link``, from anybody. Never raises: what cannot be used is counted under a reason and dropped. A
        memoryview may be reused by its owner afterwards."""
        if not self._closed:
            if now - self.core.watch.called_ns >= self.core.timing.late:
                verdict.called(self.core, now, self.deadline())
            self.core.watch.called_ns = now
            try:
                self._receive(data, now, link)
            except FrameError as e:
                self.core.count(f"dropped_{e.reason}")
            except RemoteError:
                self.core.count("dropped_malformed")
        return self._effects(now)

    def tick(self, now: int) -> list[Effect]:
        """Fire the timers that are due."""
        timers = self.core.timers
        verdict.called(self.core, now, self.deadline())
        self.core.watch.called_ns = now
        for timer in TIMERS:
            at = timers.get(timer)
            if at is not None and at <= now and not self._closed:
                del timers[timer]
                self._dispatch(timer, None, None, now)
                self._settle(now)
        if self.core.watch.contests and not self._closed:
            seats.settle(self.core, now)
        return self._effects(now)

    def deadline(self) -> int | None:
        """When ``tick`` is wanted; None: at no time."""
        timers = self.core.timers
        return min(timers.values()) if timers and not self._closed else None

    def submit(self, payload: bytes, order: Order, now: int) -> list[Effect]:
        """Queue a message. Raises VcsError when it is too large or the queue is full."""
        if not self._closed:
            self.core.queue.put(payload, order)
            self._dispatch(Event.SUBMIT, None, None, now)
        return self._effects(now)

    def leave(self, now: int) -> list[Effect]:
        """Say goodbye; nothing is done afterwards."""
        core = self.core
        if not self._closed:
            for _ in range(LEAVE_COPIES):
                core.send_message(core.everybody, Leave(core.ring.id))
        effects = self._effects(now)
        self._closed = True
        return effects

    def hint(self, nodeid: int, what: str, link: int, now: int, value: int = 0) -> list[Effect]:
        """What the kernel told the driver. It can be forged by anybody on the network, except ``link_*``, so it proves nothing.

        ``what``: ``refused`` (no process listens at the peer's address), ``unreachable`` (no route to it), ``mtu`` (a datagram may
        have at most ``value`` bytes on the way to it); ``link_down``, ``link_up`` (our own end of ``link``; nodeid 0).
        """
        core = self.core
        if self._closed:
            return []
        core.count(f"hint_{what}")
        if what in ("link_down", "link_up"):
            core.links.own_end(link, what == "link_up", now)
            core.health(core.local.nodeid, what, f"link {link}")
        elif what in ("refused", "unreachable"):
            watch.refused(core, nodeid, now)
        elif what == "mtu":
            core.links.mtu(nodeid, link, value)
        return self._effects(now)

    def reconfigure(self, nodes: tuple[int, ...], now: int) -> list[Effect]:
        """Other nodes are configured from now on: ascending, ours among them. Who is no longer has left. Who is added again must be
        started again: the former incarnation of a node that left is never heard. Raises ConfigError."""
        core = self.core
        if core.local.nodeid not in nodes or len(nodes) > MEMBERS_MAX:
            raise ConfigError([f"node {core.local.nodeid} must be one of at most {MEMBERS_MAX} configured nodes"])
        core.set_nodes(nodes)
        for peer in core.peers.values():
            gone = peer.current
            if not peer.configured and gone is not None and not self._closed:
                peer.retire()
                self._dispatch(Event.LEAVE, gone, Leave(core.ring.id), now)
                self._settle(now)
        if core.state is State.OPERATIONAL and core.everybody:
            core.arm(Event.MERGE_TIMER, now)
        return self._effects(now)

    def last_gasp(self) -> bytes:
        """The frame that somebody else sends to all peers when this process has died. After it nothing of this incarnation counts."""
        return self.core.sealer.seal_last(encode(Leave(self.core.ring.id, gasp=True)))

    @property
    def max_message(self) -> int:
        return MESSAGE_MAX

    def status(self) -> dict[str, object]:
        core = self.core
        return {
            "state": core.state.name.lower(),
            "ring": str(core.ring.id),
            "members": list(core.ring.nodeids),
            "forming": str(core.forming.ring.id) if core.forming is not None else None,
            "aru": core.ring.aru,
            "high": core.ring.high,
            "delivered": core.ring.delivered,
            "safe": core.ring.safe_upto,
            "stored": len(core.ring.store),
            "queued": len(core.queue),
            "resting": core.ring.token.held is not None,
            "links": core.links.status(),
            "counters": dict(sorted(core.counters.items())),
        }

    def ring_report(self, now: int, names: Names, times: Times, io: Mapping[str, int] | None = None) -> RingReport:
        """What `vcs ring` shows. ``io``: the driver's counters."""
        return status.report(self.core, now, names, times, io)

    # --- receiving ----------------------------------------------------------------------------------------------------------

    def _receive(self, data: bytes | memoryview, now: int, link: int) -> None:
        core = self.core
        core.arrived_on = link
        sender, counter, body = core.sealer.open(data)
        peer = core.peers.get(sender.nodeid)
        if peer is None or not peer.configured:
            core.count("dropped_own" if sender.nodeid == core.local.nodeid else "dropped_unknown_node")
            return
        if sender == peer.current:
            core.links.heard(sender.nodeid, link, counter, now)
            if not peer.window.accept(counter):
                core.count("dropped_replayed")
                return
            message = decode(body)
            peer.heard_ns = now
            self._from_peer(peer, sender, message, now)
        elif sender in peer.retired:
            core.count("dropped_former_incarnation")
        else:
            self._from_candidate(peer, sender, counter, body, now)

    def _from_candidate(self, peer: Peer, sender: Processor, counter: int, body: bytes, now: int) -> None:
        """An incarnation that has not proved yet to be there now."""
        core = self.core
        if peer.candidate != sender:
            peer.candidate, peer.candidate_window, peer.named_ns = sender, ReplayWindow(), -(1 << 62)
        if not peer.candidate_window.accept(counter):
            core.count("dropped_replayed")
            return
        message = decode(body)
        if not isinstance(message, Join | Beacon):
            core.count("dropped_not_introduced")
            return
        peer.candidate_ns = now
        if seats.claim(core, peer, core.local in message.heard, now):
            self._from_peer(peer, sender, message, now)
        else:
            core.count("not_introduced")
            gather.greet(core, peer, now)

    def _from_peer(self, peer: Peer, sender: Processor, message: Body, now: int) -> None:
        core = self.core
        if isinstance(message, _ORDERED):
            ring = core.ring if core.state is not State.RECOVERY or core.forming is None else core.forming.ring
            ours = message.ring == ring.id and ring.by_id.get(sender.nodeid) == sender
            if isinstance(message, Piece):
                whole = ring.take_piece(message) if ours else None
                if whole is None:
                    return
                message = whole
            if isinstance(message, Token):
                # From the predecessor alone: one recorded on its way to another member must not be a second token.
                event = Event.TOKEN if ours and sender.nodeid == ring.predecessor else Event.FOREIGN
            else:
                event = Event.MCAST if ours and message.origin in ring.by_id else Event.FOREIGN
        elif isinstance(message, Join | Beacon):
            if core.local not in message.heard:
                # It does not hear us (any more, or yet): a one-way link must not disturb a ring.
                core.count("not_heard")
                gather.greet(core, peer, now)
                return
            if isinstance(message, Join):
                if len(message.proc) > PROCESSORS_MAX or not core.knows(message.proc):
                    core.count("dropped_unknown_node")
                    return
                if message.ring_seq > core.ring_seq + RING_SEQ_JUMP_MAX:
                    core.count("dropped_ring_seq")
                    return
                core.known_seq = max(core.known_seq, message.ring_seq)
            event = _EVENT_OF[type(message)]
        elif isinstance(message, Leave):
            peer.retire()
            event = Event.LEAVE
        elif isinstance(message, _CONTROL):
            watch.receive(core, sender, message, now)
            if core.raised:
                self._settle(now)
            return
        else:
            event = _EVENT_OF[type(message)]
        self._dispatch(event, sender, message, now)
        if core.raised:
            self._settle(now)

    # --- the machine --------------------------------------------------------------------------------------------------------

    def _dispatch(self, event: Event, sender: Processor | None, message: Body | None, now: int) -> None:
        self._rows[self.core.state][event](self.core, sender, message, now)

    def _settle(self, now: int) -> None:
        """Handle what actions raised, until nothing is left. Bounded: each leads to a later state or is ignored there."""
        raised = self.core.raised
        while raised:
            self._dispatch(raised.pop(0), None, None, now)

    def _effects(self, now: int) -> list[Effect]:
        core = self.core
        if core.raised:
            self._settle(now)
        if core.history.fresh:
            core.history.stamp(now)
        effects, core.out = core.out, []
        return effects
