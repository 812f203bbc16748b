# SPDX-License-Identifier: GPL-2.0-only
"""Coordinators on one ordered stream that the test itself orders: a story told step by step, without time.

Every node's switch is the model of tests/fakes; effects are carried out at once. ``Story.settle`` orders everything that was
submitted, until nothing more is; ``hold`` keeps consumers from answering.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from bridge.coordinator import Coordinator
from bridge.coordinator import api as co
from bridge.coordinator.lease import UNARMED, SelfFence
from bridge.coordinator.messages import Body
from membership.api import Configuration, Health, Kind, Message, Processor
from tests.fakes.switch import FakeSwitch
from vcs.config.model import ClusterConfig, FencingConfig, LeaseConfig, NodeConfig, QuorumConfig
from vcs.model import Group, GroupFlags, GroupState, Level, Phase, RingId

H = "h"
FENCED = GroupFlags.NEEDS_FENCE | GroupFlags.PERSISTENT


def config(
    count: int = 3, wait_for_all: bool = True, agent: str = "agent", quorum: QuorumConfig | None = None
) -> ClusterConfig:
    return ClusterConfig(
        "story", tuple(NodeConfig(n, f"n{n}", (f"10.0.0.{n}",)) for n in range(1, count + 1)),
        quorum=quorum or QuorumConfig(wait_for_all=wait_for_all), fencing=FencingConfig(agent=agent), lease=LeaseConfig(0),
    )


@dataclass
class Teller:
    """One node."""

    who: Processor
    switch: FakeSwitch
    coordinator: Coordinator
    session: int
    seen: list[co.Effect] = field(default_factory=list)
    record: bytes | None = None
    outbox: deque[bytes] = field(default_factory=deque)
    consumers: dict[str, int] = field(default_factory=dict)
    hold: set[tuple[str, Phase]] = field(default_factory=set)
    fences: list[tuple[int, int]] = field(default_factory=list)
    frozen_ns: int = 0
    left: bool = False

    def group(self, name: str) -> Group | None:
        return next((g for g in self.switch.groups(H) if g.name == name), None)

    def last(self, kind: type) -> co.Effect | None:
        return next((e for e in reversed(self.seen) if isinstance(e, kind)), None)

    def notices(self, event: str) -> list[dict[str, object]]:
        return [e.fields for e in self.seen if isinstance(e, co.Notice) and e.event == event]


class Story:
    def __init__(
        self, count: int = 3, wait_for_all: bool = True, agent: str = "agent", quorum: QuorumConfig | None = None
    ) -> None:
        self.config = config(count, wait_for_all, agent, quorum)
        self.nodes: dict[int, Teller] = {}
        self.records: dict[int, bytes | None] = {}
        self.boots: dict[int, int] = {}
        self.engines = 0
        self.seq = 0
        self.now = 0
        self.self_fence: dict[int, SelfFence] = {}
        "What a node announces of its lease; absent: unarmed."
        self.rings: dict[int, tuple[RingId, tuple[Processor, ...]]] = {}
        self.order = 0

    # --- machines ---------------------------------------------------------------------------------------------------------
    def boot(self, *nodeids: int) -> None:
        """Power on, with a fresh kernel; the daemon starts."""
        for n in nodeids:
            self.boots[n] = self.boots.get(n, 0) + 1
            switch = FakeSwitch(n * 100 + self.boots[n])
            switch.provider().cluster_add(H, "story", n)
            self._daemon(n, switch)

    def restart_daemon(self, nodeid: int) -> None:
        """kill -9 of the daemon, and a new one on the same kernel."""
        switch = self.nodes[nodeid].switch
        switch._orphan(switch._clusters[H])
        self._daemon(nodeid, switch)

    def lose_provider(self, nodeid: int) -> None:
        """The switch counts the provider as lost, and its groups with it; a new daemon takes the seat."""
        switch = self.nodes[nodeid].switch
        switch._lose(switch._clusters[H])
        self._daemon(nodeid, switch)

    def gasp(self, nodeid: int, *to: int) -> None:
        """The last gasp of the node's daemon is heard by ``to``; its kernel lives on, without a provider."""
        t = self.nodes[nodeid]
        t.switch._orphan(t.switch._clusters[H])
        for n in to:
            self.tell(n, Health(nodeid, "process_dead", engine=t.who.engine))

    def _daemon(self, n: int, switch: FakeSwitch) -> None:
        self.engines += 1
        who = Processor(n, switch.incarnation, self.engines)
        session = switch.attach(switch.provider(), H, 0).session
        old = self.nodes.get(n)
        teller = Teller(who, switch, self._coordinator(who), session)
        if old is not None and old.switch is switch:
            teller.consumers = old.consumers
        self.nodes[n] = teller
        self.rings.pop(n, None)
        self.tell(n, co.LocalGroups(tuple(switch.groups(H))))

    def _coordinator(self, who: Processor) -> Coordinator:
        announced = self.self_fence.get(who.nodeid, UNARMED)
        return Coordinator(self.config, who, self.records.get(who.nodeid), self_fence=announced)

    def power_off(self, *nodeids: int) -> None:
        for n in nodeids:
            del self.nodes[n]
            self.rings.pop(n, None)

    # --- the stream -------------------------------------------------------------------------------------------------------
    def form(self, *nodeids: int, settle: bool = True) -> RingId:
        """These nodes move into one new regular configuration, through the transitional ones of those who come together."""
        olds = {self.rings[n] for n in nodeids if n in self.rings}
        for ring, members in sorted(olds):
            together = tuple(m for m in members if m.nodeid in nodeids and self.rings.get(m.nodeid, (None,))[0] == ring)
            for m in together:
                self.tell(m.nodeid, Configuration(Kind.TRANSITIONAL, ring, together))
        self.seq += 4
        new, members = RingId(self.seq, min(nodeids)), tuple(sorted(self.nodes[n].who for n in nodeids))
        for n in nodeids:
            self.nodes[n].outbox.clear()
            self.rings[n] = (new, members)
        for n in nodeids:
            self.tell(n, Configuration(Kind.REGULAR, new, members))
        if settle:
            self.settle()
        return new

    def transitional(self, *nodeids: int) -> None:
        ring, members = self.rings[nodeids[0]]
        together = tuple(m for m in members if m.nodeid in nodeids)
        for n in nodeids:
            self.tell(n, Configuration(Kind.TRANSITIONAL, ring, together))

    def deliver_one(self) -> bool:
        """Order the oldest submitted message of the lowest node that has one, and deliver it to its whole ring."""
        for n in sorted(self.nodes):
            if self.nodes[n].outbox and n in self.rings:
                ring, members = self.rings[n]
                self.order += 1
                message = Message(self.nodes[n].who, ring, self.order, self.nodes[n].outbox.popleft())
                for m in members:
                    if m.nodeid in self.nodes and self.rings.get(m.nodeid, (None,))[0] == ring:
                        self.tell(m.nodeid, message)
                return True
        return False

    def settle(self) -> None:
        for _ in range(2000):
            if not self.deliver_one():
                return
        raise AssertionError("the story does not come to rest")

    # --- one node ---------------------------------------------------------------------------------------------------------
    def tell(self, n: int, what: co.Input) -> None:
        """One input, all its effects, and whatever the switch then shows."""
        teller = self.nodes[n]
        before = teller.switch.groups(H)
        self._carry_out(n, what)
        while True:
            self._consume(n)
            after = teller.switch.groups(H)
            if after == before or n not in self.nodes or self.nodes[n] is not teller:
                return
            before = after
            self._carry_out(n, co.LocalGroups(tuple(after)))

    def look(self, n: int) -> None:
        """The node's daemon reads its switch."""
        self.tell(n, co.LocalGroups(tuple(self.nodes[n].switch.groups(H))))

    def _carry_out(self, n: int, what: co.Input) -> None:
        t = self.nodes[n]
        for e in t.coordinator.handle(what, self.now):
            t.seen.append(e)
            match e:
                case co.Submit():
                    t.outbox.append(e.payload)
                case co.Persist():
                    t.record = self.records[n] = e.record
                case co.InstallView():
                    t.switch.view_set(H, t.session, e.ring, e.quorate, e.members)
                case co.StopGroup():
                    t.switch.group_stop(H, t.session, e.name, e.event)
                case co.StartGroup():
                    t.switch.group_start(H, t.session, e.name, e.event, e.members)
                case co.FinishGroup():
                    t.switch.group_finish(H, t.session, e.name, e.event)
                case co.LeftGroup():
                    t.switch.group_left(H, t.session, e.name, e.error)
                case co.LaunchFence():
                    t.fences.append((e.nodeid, e.incarnation))
                case co.LeaveDone():
                    t.left = True
                case co.Freeze():
                    t.frozen_ns = e.until_ns
                case co.Fenced():
                    t.switch.fenced(H, t.session, e.nodeid, e.incarnation, 0)

    def _consume(self, n: int) -> None:
        """The consumers: acknowledge what is ordered, unless told to hold."""
        t = self.nodes[n]
        for g in t.switch.groups(H):
            if (g.name, g.phase) in t.hold or g.state is GroupState.LOST or g.orphan_since_ms or g.phase not in (Phase.STOP, Phase.START):
                continue
            if (g.acked_event, g.acked_phase) != (g.event, g.phase):
                t.switch.ack(H, t.consumers[g.name], g.name, g.event, g.phase)

    def release(self, n: int) -> None:
        """The consumers of ``n`` answer again."""
        self.nodes[n].hold.clear()
        self._consume(n)
        self.tell(n, co.LocalGroups(tuple(self.nodes[n].switch.groups(H))))
        self.settle()

    def join(self, name: str, *nodeids: int, level: Level = Level.LOCK_MANAGER, flags: GroupFlags = FENCED) -> None:
        for n in nodeids:
            t = self.nodes[n]
            t.consumers[name] = t.switch.join(t.switch.consumer(), H, name, level, flags, name).session
            self.tell(n, co.LocalGroups(tuple(t.switch.groups(H))))
        self.settle()

    def leave(self, name: str, nodeid: int) -> None:
        t = self.nodes[nodeid]
        t.switch.leave(H, t.consumers[name], name)
        self.tell(nodeid, co.LocalGroups(tuple(t.switch.groups(H))))
        self.settle()

    def fence_done(self, by: int, nodeid: int, incarnation: int, ok: bool = True) -> None:
        self.tell(by, co.FenceDone(nodeid, incarnation, ok, "done" if ok else "no answer"))
        self.settle()

    def later(self, seconds: float) -> None:
        """The clock goes on, and everybody looks at it."""
        self.now += int(seconds * 1e9)
        for n in sorted(self.nodes):
            self.tell(n, co.Tick())
        self.settle()

    def command(self, nodeid: int, body: Body) -> dict[str, object]:
        """What an administrator wants, and the answer."""
        self.tell(nodeid, co.Command(77, body))
        self.settle()
        return self.nodes[nodeid].notices("command_done")[-1]

    def running(self, name: str) -> dict[int, tuple[int, ...]]:
        """Node -> members of the finished event that its switch runs on; a lost group does not run."""
        found = {}
        for n, t in self.nodes.items():
            g = t.group(name)
            if g is not None and g.phase is Phase.FINISH and g.state is not GroupState.LOST:
                found[n] = tuple(m.nodeid for m in g.finished_members)
        return found
