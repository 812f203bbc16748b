# SPDX-License-Identifier: GPL-2.0-only
"""The stage of an engine run: nodes, network, checkers, and every action that can happen to them, by name.

An action is a name and plain values, so a run can be written down (tape.py) and acted again without the seed that drew it. Every
action is possible at any time: what makes no sense at that moment does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from membership.api import Configuration, EngineEvent, Health, Kind, Message, Order, Processor, Rotation
from membership.totem.states import Event, State
from tests.sim.canaries_engine import Canary
from tests.sim.checkers.engine import MODEL
from tests.sim.checkers.inside import J0Table, J3Persisted, inside
from tests.sim.checkers.live import F1Accused, L4Sync, S9Evidence
from tests.sim.checkers.record import Checker, Record
from tests.sim.engine_node import RING_SEQ, EngineHost, Node
from tests.sim.engine_plan import TIMINGS, Plan
from tests.sim.network import Link, Network
from tests.sim.world import World
from vcs.config.model import TotemConfig
from vcs.errors import VcsError

Action = tuple[int, str, tuple[Any, ...]]
"(ns, name of the action, its values)"


@dataclass(slots=True)
class Frozen:
    """The liveness phase: who is made whole, and how each of the others stays outside."""

    core: tuple[int, ...]
    outside: dict[int, str] = field(default_factory=dict)
    probe: str = ""
    cuts: tuple[tuple[int, int], ...] = ()
    "Directed pairs that stay cut within the core: then there is no one ring, and L3 counts how many there are one after another."


class Stage:
    def __init__(self, world: World, plan: Plan, disks_lost: bool, canary: Canary | None = None,
                 nodes: Iterable[int] = ()) -> None:
        self.world = world
        self.plan = plan
        self.canary = canary
        self.network = Network(world, tuple(nodes) or range(1, plan.nodes + 1), plan.ways)
        self._base()
        self.record = Record(disks_lost)
        self.nodes = {n: Node(world, self.network, n, self._program) for n in self.network.nodes}
        self.table = J0Table(self.record)
        self.sync = L4Sync(self.record)
        self.accused = F1Accused(self.record, self.nodes, self.network)
        self.evidence = S9Evidence(self.record)
        self.table.on_token = self.evidence.token
        self.checkers: list[Checker] = [
            *(c(self.record) for c in MODEL), *(c for c in inside(self.record, self.nodes) if not isinstance(c, J0Table)),
            self.table, self.sync, self.accused, self.evidence]
        self._on_configuration = [c.on_configuration for c in self.checkers if c.watches("on_configuration")]
        self._on_message = [c.on_message for c in self.checkers if c.watches("on_message")]
        self._after_event = [c.after_event for c in self.checkers if c.watches("after_event")]
        self.hosts: dict[int, EngineHost] = {}
        self.timing = dict.fromkeys(self.network.nodes, plan.timing)
        self.count = 0
        self.tape: list[Action] | None = None
        "Where actions are written down, if anywhere."
        for i, node in enumerate(self.nodes.values()):
            node.inbox_bytes = plan.inbox_bytes
            # Opposite signs for neighbours, and no two alike.
            node.skew_ppm = (plan.skew_ppm - i * plan.skew_ppm // 8) * (-1) ** i
            node.on_crash.append(self._died)

    def _base(self) -> None:
        self.network.set_all(delay_ns=self.plan.delay_ns, jitter_ns=self.plan.jitter_ns)

    def perfect(self) -> None:
        self.network.perfect()
        self._base()

    def _died(self, node: Node) -> None:
        if node.processor is not None:
            self.record.dead.add(node.processor)

    # --- what the engines say -----------------------------------------------------------------------------------------------

    def _program(self, node: Node, processor: Processor) -> EngineHost:
        host = StageHost(self, node, processor)
        if self.canary is not None:
            self.canary.host(host)
        self.table.watch(host)
        self.record.hosts[processor] = self.hosts[node.nodeid] = host
        return host

    def told(self, host: EngineHost, p: Processor, event: EngineEvent) -> None:
        if isinstance(event, Message):
            self.world.trace("told", p.nodeid, event.sender.nodeid, event.ring, event.seq, event.payload[:20])
            for check_message in self._on_message:
                check_message(p, event)
            self.record.periods[p][-1].messages.append(event)
            self.sync.told(p, event)
        elif isinstance(event, Configuration):
            self.world.trace("conf", p.nodeid, event.kind.name, event.ring, [m.nodeid for m in event.members])
            for check_configuration in self._on_configuration:
                check_configuration(p, event)
            self.record.add_configuration(p, event)
            if event.kind is Kind.REGULAR:
                if self.plan.sync:
                    self._submit(host, self.sync.begin(p, event), False)
                self.installed(p)

        elif isinstance(event, Health):
            self.world.trace("health", p.nodeid, event.nodeid, event.what, event.detail)
            self.accused.accused(self.world.now, host, event)
        elif isinstance(event, Rotation):
            self.evidence.rotation(host, event)

    def installed(self, p: Processor) -> None:
        """A regular configuration was told; whoever draws faults may have plans for this moment."""

    def after_event(self, node: Node, host: EngineHost) -> None:
        for check in self._after_event:
            check(node, host)

    def noted(self, host: EngineHost, name: str, fields: dict[str, object]) -> None:
        if name == "totem_state":
            core = host.core.core
            self.world.trace("state", host.processor.nodeid, fields["after"], core.ring.id, f"aru={core.ring.aru}",
                             f"high={core.ring.high}", f"told={core.ring.delivered}", f"queue={len(core.queue)}", fields["why"])

    def _submit(self, host: EngineHost, payload: bytes, safe: bool) -> None:
        self.record.add_submitted(payload, host.processor, safe)
        try:
            host.submit(payload, Order.SAFE if safe else Order.AGREED)
        except VcsError:
            del self.record.submitted[payload]

    def at_end(self) -> None:
        for checker in self.checkers:
            checker.at_end()

    def cells(self) -> set[tuple[State, Event]]:
        return self.table.reached

    # --- actions ------------------------------------------------------------------------------------------------------------

    def act(self, name: str, *values: Any) -> None:
        """Let something happen now, and write it down."""
        if self.tape is not None:
            self.tape.append((self.world.now, name, values))
        if name != "submit":
            self.world.trace("act", name, *values)
        getattr(self, f"do_{name}")(*values)
        if name != "submit":
            self._disturbed(name, values)

    def _disturbed(self, name: str, values: tuple[Any, ...]) -> None:
        """Who cannot be blamed, or believed, for a while."""
        now = self.world.now
        if name in ("link", "clog"):
            for a, b, _k in {(s, t, 0) for (s, t, _w) in self.network.paths if values[0] in (0, s) and values[1] in (0, t)}:
                self.accused.cut(now, a, b)
        elif name in ("partition", "heal"):
            for a, b, _k in self.network.paths:
                self.accused.cut(now, a, b)
        elif values:
            self.accused.disturbed(now, values[0], name in ("pause", "resume"))

    def later(self, delay: int, name: str, *values: Any) -> None:
        self.world.after(delay, self.act, name, *values)

    def do_submit(self, n: int, size: int, safe: bool) -> bytes:
        """One unique message at node n."""
        self.count += 1
        payload = f"{n}/{self.count}/".encode().ljust(size, b"%d" % (self.count % 10))
        node = self.nodes.get(n)
        if node is not None and node.up and not node.paused:
            self._submit(self.hosts[n], payload, safe)
        return payload

    def do_crash(self, n: int) -> None:
        """The machine is off: nobody says anything."""
        self.nodes[n].crash()

    def do_die(self, n: int) -> None:
        """The process is killed, the machine lives: its guardian tells the others."""
        node = self.nodes[n]
        if node.up:
            host = self.hosts[n]
            node.crash()
            host.gasp()

    def do_leave(self, n: int) -> None:
        node = self.nodes[n]
        if node.up and not node.paused:
            self.hosts[n].leave()
            node.crash()

    def do_start(self, n: int, reboot: bool, timing: str = "") -> None:
        if timing:
            self.timing[n] = timing
        if not self.nodes[n].up:
            self.nodes[n].start(reboot)

    def do_pause(self, n: int) -> None:
        self.nodes[n].pause()

    def do_resume(self, n: int) -> None:
        self.nodes[n].resume()

    def do_at_persist(self, n: int, fate: str) -> None:
        """The next write of node n: crash ``before`` it, ``after`` it, or the disk is ``failing`` and the process ends of it."""
        self.nodes[n].crash_at_persist = fate

    def do_lose_disk(self, n: int, damaged: bool) -> None:
        """The ring sequence is gone, or cannot be read."""
        node = self.nodes[n]
        if RING_SEQ in node.storage and not node.up:
            node.storage[RING_SEQ] = b"?" if damaged else b""
            for checker in self.checkers:
                if isinstance(checker, J3Persisted):
                    checker.disk_lost(n)

    def do_disk(self, n: int, ns: int) -> None:
        self.nodes[n].persist_ns = ns

    def do_cpu(self, n: int, ns: int) -> None:
        self.nodes[n].cost_ns = ns

    def do_link(self, a: int, b: int, way: int, name: str, value: float) -> None:
        """Set one property of the links from a to b (0: of all nodes) over ``way`` (-1: all)."""
        for link in self._links(a, b, way):
            setattr(link, name, value)

    def do_clog(self, a: int, b: int, ns: int) -> None:
        for link in self._links(a, b, -1):
            link.clogged_until = self.world.now + ns

    def _links(self, a: int, b: int, way: int) -> list[Link]:
        return [x for (s, t, k), x in self.network.paths.items() if a in (0, s) and b in (0, t) and way in (-1, k)]

    def do_partition(self, *groups: tuple[int, ...]) -> None:
        """Nobody outside these groups is left out: who is named in none is alone."""
        self.network.heal()
        named = {n for g in groups for n in g}
        self.network.partition([*groups, *((n,) for n in self.network.nodes if n not in named)])

    def do_heal(self) -> None:
        self.network.heal()

    # --- the liveness phase -------------------------------------------------------------------------------------------------

    def freeze(self, frozen: Frozen) -> None:
        """Make the core whole; the others stay as they are told to for ever."""
        self.world.trace("live", 0, frozen.core, sorted(frozen.outside.items()), frozen.cuts)
        self.perfect()
        for a, b in frozen.cuts:
            self.network.cut(a, b)
        for a, b, _k in self.network.paths:
            self.accused.cut(self.world.now, a, b)
        core = set(frozen.core)
        for n, node in self.nodes.items():
            node.crash_at_persist, node.persist_ns, node.cost_ns = "", 0, 0
            self.accused.disturbed(self.world.now, n)
            kind = frozen.outside.get(n, "")
            if kind == "down":
                node.crash()
            for (a, b, _k), link in self.network.paths.items():
                toward = b == n and a in core and kind in ("apart", "deaf")
                away = a == n and b in core and kind in ("apart", "dumb")
                between = kind and n in (a, b) and not core & {a, b}
                if toward or away or between:
                    link.cut = True
            if kind == "paused":
                node.pause()
            elif kind != "down":
                node.resume()
                if not node.up:
                    node.start()


class StageHost(EngineHost):
    """An engine host that reports to the stage after each of its events."""

    def __init__(self, stage: Stage, node: Node, processor: Processor) -> None:
        super().__init__(node, processor, lambda event: stage.told(self, processor, event), self._config(stage, node.nodeid))
        self.on_note = lambda name, fields: stage.noted(self, name, fields)
        self._stage = stage

    @staticmethod
    def _config(stage: Stage, nodeid: int) -> TotemConfig:
        return TIMINGS[stage.timing[nodeid]]

    def datagram(self, data: bytes, link: int = 0) -> None:
        super().datagram(data, link)
        self._stage.after_event(self.node, self)

    def tick(self) -> None:
        super().tick()
        self._stage.after_event(self.node, self)
