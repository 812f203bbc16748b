# SPDX-License-Identifier: GPL-2.0-only
"""One seed of the engine alone: the seed draws the cluster, the faults and the load; then the faults end, and all must come together.

    safety phase: loss, duplicates, reordering, corruption, partitions (also of one direction), crashes (also at a write), restarts,
                  pauses, leaves, with the checkers watching
    liveness phase: everything mended and started; one ring of all, everything submitted since delivered, within LIVE_NS
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from membership.api import Configuration, EngineEvent, Kind, Message, Order, Processor
from tests.sim.canaries_engine import ENGINE_CANARIES, Canary
from tests.sim.checkers.engine import Checker, I15SafeInstalled, J0Table, Period, Record, all_checkers
from tests.sim.engine_node import EngineHost, Node
from tests.sim.network import Network
from tests.sim.world import MS, SECOND, Violation, World
from vcs.config.model import TotemConfig
from vcs.errors import VcsError

__all__ = ["ENGINE_CANARIES", "Result", "run_engine_seed"]

SAFETY_EVENTS = 5200
"Events of the safety phase at most; the rest of the world's limit is for the liveness phase."
SAFETY_NS = 12 * SECOND
LIVE_NS = 8 * SECOND
QUEUED_MAX = 12
"Messages that wait at one node before the load pauses there: what is left over must fit into the liveness phase."
FAST = TotemConfig(token_ms=120, consensus_ms=60, join_ms=20, token_retransmit_ms=25, hold_ms=20, merge_ms=50)


@dataclass(frozen=True, slots=True)
class Result:
    ok: bool
    violation: str
    "``NAME: detail``, empty if there was none."
    trace_hash: str
    events: int
    log: tuple[str, ...] = ()
    "The tail of the trace."


@dataclass(slots=True)
class Plan:
    """What the seed drew: swarm testing, so that most runs lack most faults."""

    nodes: int
    config: TotemConfig
    step_ns: int
    weights: dict[str, int]
    submit_ns: int
    safe: float
    sizes: tuple[int, ...]
    sniper: float
    "How often the nodes are cut apart at the very moment when one of them installs a ring."
    together: bool = False
    "Only when that node comes from its old ring together with others: then these hold a promise, and no ring."

    @classmethod
    def draw(cls, rng: Random) -> Plan:
        kinds = ["partition", "one_way", "heal", "crash", "restart", "pause", "resume", "leave", "crash_at_persist", "loss",
                 "reorder", "duplicate", "corrupt", "drop_large", "mute", "calm"]
        if rng.random() < 0.2:
            return cls.draw_recovery(rng)
        chosen = {k for k in kinds if rng.random() < 0.5} | {"heal", "restart", "resume", "calm"}
        return cls(
            nodes=rng.choice((1, 2, 3, 3, 3, 4, 5)),
            config=rng.choice((TotemConfig(), FAST)),
            step_ns=rng.choice((30 * MS, 100 * MS, 400 * MS)),
            weights={k: rng.randint(1, 10) for k in sorted(chosen)},
            submit_ns=rng.choice((2 * MS, 10 * MS, 60 * MS)),
            safe=rng.choice((0.0, 0.3, 0.7)),
            sizes=rng.choice(((40,), (40, 1500), (40, 600, 9000))),
            sniper=rng.choice((0.0, 0.0, 0.2, 0.5)),
        )

    @classmethod
    def draw_recovery(cls, rng: Random) -> Plan:
        """Made for recoveries that fail half-way, with messages missing for ever: members fall mute, then silent, then apart."""
        return cls(
            nodes=rng.choice((4, 5)),
            config=FAST,
            step_ns=rng.choice((100 * MS, 200 * MS)),
            weights={"mute": 6, "heal": 6, "restart": 2, "resume": 1},
            submit_ns=2 * MS,
            safe=0.6,
            sizes=(400,),
            sniper=0.7,
            together=True,
        )


class EngineRun:
    def __init__(self, seed: int | str, canary: Canary | None = None) -> None:
        self.world = World(seed)
        self.canary = canary
        self.plan = Plan.draw(self.world.rng("plan"))
        self.network = Network(self.world, range(1, self.plan.nodes + 1))
        self.record = Record()
        self.nodes = {n: Node(self.world, self.network, n, self._program) for n in self.network.nodes}
        self.checkers: list[Checker] = all_checkers(self.record, self.nodes)
        self.watchers = {
            what: [c for c in self.checkers if c.watches(what)] for what in ("on_configuration", "on_message", "after_event")}
        self.hosts: dict[int, EngineHost] = {}
        self.count = 0
        self.faulty = True
        for node in self.nodes.values():
            node.on_crash.append(self._died)

    def _died(self, node: Node) -> None:
        if node.processor is not None:
            self.record.dead.add(node.processor)

    # --- nodes --------------------------------------------------------------------------------------------------------------

    def _program(self, node: Node, processor: Processor) -> EngineHost:
        host = _Host(self, node, processor)
        if self.canary is not None:
            self.canary.host(host)
        for checker in self.checkers:
            if isinstance(checker, J0Table):
                checker.watch(host)
            elif isinstance(checker, I15SafeInstalled):
                checker.hosts[processor] = host
        self.hosts[node.nodeid] = host
        return host

    def told(self, node: Node, p: Processor, event: EngineEvent) -> None:
        if isinstance(event, Configuration):
            self.world.trace("conf", p.nodeid, event.kind.name, event.ring, [m.nodeid for m in event.members])
            for checker in self.watchers["on_configuration"]:
                checker.on_configuration(p, event)
            self.record.periods.setdefault(p, []).append(Period(event))
            if event.kind is Kind.REGULAR and self.faulty:
                self._snipe(p)
        elif isinstance(event, Message):
            self.world.trace("told", p.nodeid, event.sender.nodeid, event.ring, event.seq, event.payload[:20])
            for checker in self.watchers["on_message"]:
                checker.on_message(p, event)
            self.record.periods[p][-1].messages.append(event)

    def after_event(self, node: Node, host: EngineHost) -> None:
        for checker in self.watchers["after_event"]:
            checker.after_event(node, host)

    def submit(self, host: EngineHost) -> bytes:
        """One unique message at a node."""
        rng = self.world.rng("load")
        self.count += 1
        size = rng.choice(self.plan.sizes)
        payload = f"{host.processor.nodeid}/{self.count}/".encode().ljust(size, b"%d" % (self.count % 10))
        safe = rng.random() < self.plan.safe
        self.record.submitted[payload] = (host.processor, safe)
        try:
            host.submit(payload, Order.SAFE if safe else Order.AGREED)
        except VcsError:
            del self.record.submitted[payload]
        return payload

    # --- faults -------------------------------------------------------------------------------------------------------------

    def _snipe(self, p: Processor) -> None:
        rng = self.world.rng("sniper")
        if self.plan.together and len(self.record.periods[p][-2:][0].conf.members) < 2:
            return
        if rng.random() < self.plan.sniper:
            victims = rng.sample(self.network.nodes, len(self.network.nodes))
            at = 0 if self.plan.together else rng.choice((0, MS // 2, 2 * MS))
            self.world.trace("snipe", victims, at)
            if rng.random() < 0.25:
                self.world.after(at, lambda: self._strike(victims[0]))
            else:
                first, second = sorted((rng.randint(1, len(victims)), rng.randint(1, len(victims))))
                self.world.after(at, lambda: self._cut([victims[:first], victims[first:second], victims[second:]]))

    def _strike(self, nodeid: int) -> None:
        if self.faulty:
            self.nodes[nodeid].crash()

    def _cut(self, groups: list[list[int]]) -> None:
        if self.faulty:
            self.network.partition(groups)

    def _fault(self) -> None:
        if not self.faulty:
            return
        rng = self.world.rng("faults")
        kinds = list(self.plan.weights)
        kind = rng.choices(kinds, [self.plan.weights[k] for k in kinds])[0]
        node = self.nodes[rng.choice(self.network.nodes)]
        self.world.trace("fault", kind, node.nodeid)
        getattr(self, f"_do_{kind}")(rng, node)
        self.world.after(rng.randrange(1, 2 * self.plan.step_ns), self._fault)

    def _do_partition(self, rng: Random, _node: Node) -> None:
        groups: list[list[int]] = [[], [], []]
        for n in self.network.nodes:
            groups[rng.randrange(rng.choice((2, 3)))].append(n)
        self.network.heal()
        self.network.partition(groups)

    def _do_one_way(self, rng: Random, node: Node) -> None:
        others = [n for n in self.network.nodes if n != node.nodeid]
        if others:
            self.network.cut(node.nodeid, rng.choice(others))

    def _do_heal(self, _rng: Random, _node: Node) -> None:
        self.network.heal()

    def _do_crash(self, _rng: Random, node: Node) -> None:
        node.crash()

    def _do_restart(self, rng: Random, node: Node) -> None:
        if rng.random() < 0.3:
            node.crash()
        if not node.up:
            node.start(reboot=rng.random() < 0.5)

    def _do_pause(self, _rng: Random, node: Node) -> None:
        node.pause()

    def _do_resume(self, _rng: Random, _node: Node) -> None:
        for node in self.nodes.values():
            node.resume()

    def _do_leave(self, _rng: Random, node: Node) -> None:
        if node.up and not node.paused:
            self.hosts[node.nodeid].leave()
            node.crash()

    def _do_crash_at_persist(self, rng: Random, node: Node) -> None:
        node.crash_at_persist = rng.choice(("before", "after"))

    def _do_loss(self, rng: Random, _node: Node) -> None:
        self.network.set_all(loss=rng.choice((0.0, 0.02, 0.1, 0.3)))

    def _do_reorder(self, rng: Random, _node: Node) -> None:
        self.network.set_all(reorder=rng.choice((0.0, 0.1, 0.5)))

    def _do_duplicate(self, rng: Random, _node: Node) -> None:
        self.network.set_all(duplicate=rng.choice((0.0, 0.1, 0.5)))

    def _do_corrupt(self, rng: Random, _node: Node) -> None:
        self.network.set_all(corrupt=rng.choice((0.0, 0.05, 0.2)))

    def _do_drop_large(self, rng: Random, node: Node) -> None:
        for (a, b), link in self.network.links.items():
            if b == node.nodeid or a == node.nodeid:
                link.drop_above = rng.choice((0, 0, 700))

    def _do_mute(self, rng: Random, node: Node) -> None:
        """Its messages are lost and its tokens are not, until it is cut off: the others have a hole that nobody can fill."""
        others = [n for n in self.network.nodes if n != node.nodeid]
        for n in others:
            self.network.links[node.nodeid, n].drop_above = 300

        def end() -> None:
            self.world.trace("muted", node.nodeid)
            for n in others:
                self.network.links[node.nodeid, n].drop_above = 0
            self._cut([[node.nodeid], others])

        self.world.after(rng.randrange(5 * MS, 30 * MS), end)

    def _do_calm(self, _rng: Random, _node: Node) -> None: ...

    def _load(self) -> None:
        rng = self.world.rng("load")
        up = [n for n in self.nodes.values() if n.up and not n.paused]
        if up and self.faulty:
            for _ in range(rng.choice((1, 1, 4))):
                node = rng.choice(up)
                if node.up and len(self.hosts[node.nodeid].core.core.queue) < QUEUED_MAX:
                    self.submit(self.hosts[node.nodeid])
        if self.faulty:
            self.world.after(rng.randrange(1, 2 * self.plan.submit_ns), self._load)

    # --- the two phases -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        for node in self.nodes.values():
            node.start()
        self.world.after(20 * MS, self._load)
        self.world.after(self.world.rng("faults").randrange(400 * MS), self._fault)
        self.world.run(self.world.now + SAFETY_NS, self._enough)
        self._live()
        self._at_end()

    def _enough(self) -> bool:
        return self.world.events >= SAFETY_EVENTS

    def _at_end(self) -> None:
        for checker in self.checkers:
            checker.at_end()

    def _live(self) -> None:
        self.faulty = False
        self.world.trace("live")
        self.network.perfect()
        for node in self.nodes.values():
            node.crash_at_persist = ""
            node.resume()
            if not node.up:
                node.start()
        everybody = {n.processor for n in self.nodes.values()}
        if not self.world.run(self.world.now + LIVE_NS, lambda: self._together(everybody)):
            self._stuck("L1", "not everybody is in one regular configuration")
        last = [self.submit(self.hosts[n]) for n in self.nodes for _ in range(2)]
        if not self.world.run(self.world.now + LIVE_NS, lambda: self._all_told(everybody, last)):
            self._stuck("L2", "not everything was delivered")

    def _stuck(self, name: str, what: str) -> None:
        self._at_end()  # a broken promise says more than a standstill
        states = {n: self.hosts[n].core.status() for n in self.nodes}
        raise Violation(name, f"{what} after {self.world.events} events: {states}")

    def _together(self, everybody: set[Processor | None]) -> bool:
        rings = {h.core.core.ring.id for h in self.hosts.values()}
        return len(rings) == 1 and all(
            h.core.core.forming is None and h.core.core.state == 0 and set(h.core.core.ring.members) == everybody
            for h in self.hosts.values())

    def _all_told(self, everybody: set[Processor | None], last: list[bytes]) -> bool:
        """Everything that a live process submitted and has not given up is told at its sender, the last ones at everybody."""
        if any(h.core.core.queue for h in self.hosts.values()):
            return False
        return all(
            {m.payload for x in self.record.periods[p][-1:] for m in x.messages} >= set(last) for p in everybody if p is not None)


class _Host(EngineHost):
    """An engine host that reports to the run after each of its events."""

    def __init__(self, run: EngineRun, node: Node, processor: Processor) -> None:
        super().__init__(node, processor, lambda event: run.told(node, processor, event), run.plan.config)
        self._run_of = run

    def datagram(self, data: bytes, link: int = 0) -> None:
        super().datagram(data, link)
        self._run_of.after_event(self.node, self)

    def tick(self) -> None:
        super().tick()
        self._run_of.after_event(self.node, self)


def run_engine_seed(seed: int | str, canary: str | None = None) -> Result:
    """Run one seed, if asked with one rule broken on purpose (a name of ENGINE_CANARIES). Never raises a violation: see Result."""
    broken = ENGINE_CANARIES[canary]() if canary is not None else None
    run = EngineRun(seed, broken)
    violation = ""
    try:
        if broken is not None:
            with broken:
                run.run()
        else:
            run.run()
    except Violation as e:
        violation = str(e)
    return Result(not violation, violation, run.world.trace_hash, run.world.events, tuple(run.world.log))
