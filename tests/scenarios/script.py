# SPDX-License-Identifier: GPL-2.0-only
"""The words that scenarios are written in: one simulated cluster, what is done to it, and what must come of it.

Every scenario is watched by all checkers of extended virtual synchrony (tests/sim/checkers/engine.py) from beginning to end, so a
script says only what is particular to it: bounds of time, of configurations, of packets. Everything that happens goes into a column
log (time in ms, node, state, event), which tests/scenarios/golden.py compares with the recorded one.

Times in this file are in milliseconds of simulated time, like the scripts; the world below counts nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from membership.api import Configuration, EngineEvent, Health, Kind, Message, Order, Processor
from membership.totem.core import Effect, Persist
from membership.totem.limits import RING_SEQ_RESERVE
from membership.totem.seal import Sealer
from membership.totem.states import State
from tests.scenarios.wires import Wires
from tests.sim.checkers.engine import MODEL
from tests.sim.checkers.inside import J0Table, J3Persisted, inside
from tests.sim.checkers.record import Checker, Record
from tests.sim.engine_node import RING_SEQ, CheapSuite, EngineHost, Node, stored_ring_seq
from tests.sim.world import MS, World
from vcs.config.model import TotemConfig
from vcs.errors import VcsError

EVENTS_MAX = 3_000_000
"A scenario that needs more events than this spins."
FORM_MS = 3000
"So long may a cluster take to form its first ring in a scenario that is about something else."


class Broken(AssertionError):
    """Something that the script expects did not come about; the message ends with the last lines of the log."""


@dataclass(slots=True)
class Seen:
    """What one node was told, over all its lives, with the times (ns)."""

    configurations: list[tuple[int, Configuration]] = field(default_factory=list)
    "Regular ones."
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    payloads: set[bytes] = field(default_factory=set)
    health: list[tuple[int, Health]] = field(default_factory=list)
    untold: int = 0
    "Messages since the last line of the log about this node."

    def forget(self) -> None:
        """For runs without end: what was seen so far is judged. The last configuration stays: it is the present one."""
        del self.configurations[:-1]
        self.messages.clear()
        self.payloads.clear()
        self.health.clear()


class Host(EngineHost):
    """An engine that reports every event to the script and, after it, to the checkers."""

    script: Script
    reserving = False

    def datagram(self, data: bytes, link: int = 0) -> None:
        super().datagram(data, link)
        self.script.after_event(self)

    def tick(self) -> None:
        super().tick()
        self.script.after_event(self)

    def _execute(self, effect: Effect) -> None:
        """With a slow store sequences are reserved ahead, as in membership/totem/driver.py: only a used up reserve is waited for."""
        if not isinstance(effect, Persist) or not self.node.persist_ns:
            super()._execute(effect)
            return
        stored = stored_ring_seq(self.node)
        if effect.ring_seq > stored:
            super()._execute(Persist(effect.ring_seq + RING_SEQ_RESERVE))
        elif effect.ring_seq > stored - RING_SEQ_RESERVE // 2 and not self.reserving:
            self.reserving = True
            self.node.world.after(self.node.persist_ns, self._reserved, stored + RING_SEQ_RESERVE)

    def _reserved(self, ring_seq: int) -> None:
        self.reserving = False
        if self.alive:
            self.persist(ring_seq)

    def reconfigure(self, nodes: tuple[int, ...]) -> None:
        self._run(self.core.reconfigure(nodes, self.node.now))
        self.node.poke()


class Script:
    """A cluster of ``nodes`` (a count, or nodeids). ``jitter``: delays vary by the seed; without it one run is like the other."""

    def __init__(self, nodes: int | Iterable[int] = 3, *,
                 config: TotemConfig | None = None, seed: int | str = 0, jitter: bool = False, started: bool = True,
                 watch: Iterable[int] | None = None, checked: bool = True, ways: int = 1, cluster: str = "sim",
                 disks_lost: bool = False) -> None:
        self.config = config or TotemConfig()
        self.cluster = cluster
        self.world = World(f"scenario/{seed}", EVENTS_MAX)
        self.wires = Wires(self.world, range(1, nodes + 1) if isinstance(nodes, int) else nodes, jitter, ways)
        self.ids = self.wires.nodes
        self.known = dict.fromkeys(self.ids, self.ids)
        "Which nodes each one's configuration names."
        self.watched = set(self.ids if watch is None else watch)
        self.log: list[str] = []
        self.seen = {n: Seen() for n in self.ids}
        self.record = Record(disks_lost)
        self.hosts: dict[int, Host] = {}
        self._calls: dict[str, list[Checker]] = {}
        self.nodes = {n: Node(self.world, self.wires, n, self._program) for n in self.ids}
        self.checkers: list[Checker] = []
        self.checked = checked
        "The whole history is kept, for the checkers of the model."
        self.judge([*(c(self.record) for c in MODEL), *inside(self.record, self.nodes)] if checked else [])
        self._count = 0
        self._zero = self.world.now
        self._loads: set[object] = set()
        for node in self.nodes.values():
            node.on_crash.append(self._died)
        if started:
            self.start(*self.ids)
            self.ring(*self.ids, within=FORM_MS)

    def judge(self, checkers: list[Checker]) -> None:
        """Who watches. Nodes that run already are watched too."""
        self.checkers = checkers
        self._calls = {what: [c for c in checkers if c.watches(what)] for what in ("on_configuration", "on_message", "after_event")}
        for host in self.hosts.values():
            self._watch(host)

    def _watch(self, host: Host) -> None:
        for checker in self.checkers:
            if isinstance(checker, J0Table):
                checker.watch(host)

    # --- the log ----------------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Milliseconds since the beginning."""
        return (self.world.now - self._zero) / MS

    def say(self, event: str, node: int = 0) -> None:
        """One line: what the script does (no node), or what a node tells."""
        if not node:
            for n in self.ids:
                self._flush(n)
        elif node not in self.watched:
            return
        host = self.hosts.get(node)
        state = "" if not node else host.core.core.state.name.lower() if host is not None and host.alive else "down"
        self.log.append(f"{self.now:12.3f}  {node or '':>3}  {state:<11}  {event}")

    def _flush(self, node: int) -> None:
        seen = self.seen[node]
        count, seen.untold = seen.untold, 0
        if count:
            self.say(f"delivers {count} message{'s' * (count > 1)}", node)

    def fail(self, text: str) -> None:
        raise Broken(f"{text}, at {self.now:.3f} ms; states {self.states()}\n" + "\n".join(self.log[-40:]))

    def states(self) -> dict[int, str]:
        out = {}
        for n, host in self.hosts.items():
            core = host.core.core
            out[n] = f"{core.state.name} {list(core.ring.nodeids)} {core.ring.id}" if host.alive else "down"
        return out

    # --- what the nodes tell ------------------------------------------------------------------------------------------------------

    def _program(self, node: Node, processor: Processor) -> Host:
        host = Host(node, processor, lambda event: self._told(node, processor, event), self.config, self.known[node.nodeid])
        host.core.core.sealer = Sealer(self.cluster, processor, CheapSuite())
        host.script = self
        host.on_note = lambda name, fields: self._noted(node.nodeid, name, fields)
        self._watch(host)
        if self.checked:
            self.record.hosts[processor] = host
        self.hosts[node.nodeid] = host
        return host

    def _noted(self, node: int, name: str, fields: dict[str, object]) -> None:
        if name == "totem_state":
            self._flush(node)
            self.say(f"{fields['before']} -> {fields['after']}: {fields['why']}", node)

    def _told(self, node: Node, p: Processor, event: EngineEvent) -> None:
        seen = self.seen[node.nodeid]
        if isinstance(event, Configuration):
            for checker in self._calls["on_configuration"]:
                checker.on_configuration(p, event)
            if self.checked:
                self.record.add_configuration(p, event)
            if event.kind is Kind.REGULAR:
                seen.configurations.append((self.world.now, event))
            self._flush(node.nodeid)
            self.say(f"{event.kind.name.lower()} {event.ring}: {' '.join(str(m.nodeid) for m in event.members)}", node.nodeid)
        elif isinstance(event, Message):
            for checker in self._calls["on_message"]:
                checker.on_message(p, event)
            if self.checked:
                self.record.periods[p][-1].messages.append(event)
            seen.messages.append((self.world.now, event.payload))
            seen.payloads.add(event.payload)
            seen.untold += 1
        elif isinstance(event, Health):
            seen.health.append((self.world.now, event))
            self.say(f"node {event.nodeid} {event.what}{f': {event.detail}' if event.detail else ''}", node.nodeid)

    def after_event(self, host: Host) -> None:
        for checker in self._calls["after_event"]:
            checker.after_event(host.node, host)

    def _died(self, node: Node) -> None:
        if node.processor is not None and self.checked:
            self.record.dead.add(node.processor)

    # --- faults: nodes --------------------------------------------------------------------------------------------------------------

    def start(self, *nodes: int, reboot: bool = True) -> None:
        for n in nodes:
            self.say(f"start {n}")
            self.nodes[n].start(reboot)

    def kill(self, *nodes: int) -> None:
        """The processes end without a word."""
        for n in nodes:
            self.say(f"kill {n}")
            self.nodes[n].crash()

    def restart(self, *nodes: int, reboot: bool = False, storage: str = "kept") -> None:
        """Kill if need be, and start again. ``storage``: kept, lost or damaged."""
        for n in nodes:
            if self.nodes[n].up:
                self.kill(n)
            if storage != "kept":
                self.lose(n, storage == "damaged")
            self.start(n, reboot=reboot)

    def lose(self, node: int, damaged: bool = False) -> None:
        """The file with the ring sequence of a node that is down is gone, or cannot be read."""
        self.say(f"the stored ring sequence of {node} is {'damaged' if damaged else 'lost'}")
        self.nodes[node].storage[RING_SEQ] = b"?" if damaged else b""
        for checker in self.checkers:
            if isinstance(checker, J3Persisted):
                checker.disk_lost(node)

    def leave(self, *nodes: int) -> None:
        for n in nodes:
            self.say(f"leave {n}")
            self.hosts[n].leave()
            self.nodes[n].crash()

    def pause(self, *nodes: int) -> None:
        for n in nodes:
            self.say(f"pause {n}")
            self.nodes[n].pause()

    def resume(self, *nodes: int) -> None:
        for n in nodes:
            self.say(f"resume {n}")
            self.nodes[n].resume()

    def die(self, *nodes: int) -> None:
        """The processes are killed, their hosts live: each one's guardian says so."""
        for n in nodes:
            self.say(f"die {n}")
            host = self.hosts[n]
            self.nodes[n].crash()
            host.gasp()

    def slow(self, node: int, us: float) -> None:
        """From now on a datagram keeps this node's processor busy for so many microseconds."""
        self.say(f"slow {node}: {us:g} us for a datagram")
        self.nodes[node].cost_ns = int(us * 1000)

    def store(self, node: int, ms: float) -> None:
        """From now on a write takes so long at this node."""
        self.say(f"store of {node}: {ms:g} ms")
        self.nodes[node].persist_ns = int(ms * MS)

    def drift(self, node: int, ppm: int) -> None:
        """This node's clock goes faster than the others' by so many millionths. Before the start only: a clock does not jump."""
        self.say(f"clock of {node}: {ppm:+} ppm")
        self.nodes[node].skew_ppm = ppm

    def know(self, *nodes: int, at: Iterable[int]) -> None:
        """The configuration of the nodes ``at`` now names ``nodes``; running ones are told."""
        for n in at:
            self.say(f"configuration of {n}: nodes {' '.join(map(str, nodes))}")
            self.known[n] = tuple(nodes)
            if self.nodes[n].up:
                self.hosts[n].reconfigure(self.known[n])

    def at(self, after: float, action: Callable[[], None]) -> None:
        """Do something in ``after`` ms."""
        self.world.after(int(after * MS), action)

    # --- faults: the network --------------------------------------------------------------------------------------------------------

    def one_way(self, source: int, to: int, way: int | None = None) -> None:
        """Nothing from ``source`` reaches ``to`` any more, over one link or all; the other direction works."""
        self.say(f"cut {source} -> {to}{'' if way is None else f' on link {way}'}")
        self.wires.cut(source, to, way)

    def cut(self, a: int, b: int, way: int | None = None) -> None:
        self.say(f"cut {a} - {b}{'' if way is None else f' on link {way}'}")
        self.wires.cut(a, b, way)
        self.wires.cut(b, a, way)

    def only(self, *pairs: tuple[int, int]) -> None:
        """Only these pairs still reach each other."""
        self.say("only " + " ".join(f"{a}-{b}" for a, b in pairs))
        for a in self.ids:
            for b in self.ids:
                if a < b and (a, b) not in pairs and (b, a) not in pairs:
                    self.wires.cut(a, b)
                    self.wires.cut(b, a)

    def partition(self, *groups: Iterable[int]) -> None:
        sides = [sorted(g) for g in groups]
        self.say("partition " + " | ".join(" ".join(map(str, g)) for g in sides))
        self.wires.partition(sides)

    def heal(self) -> None:
        self.say("heal")
        self.wires.heal()

    def links(self, source: int | None = None, to: int | None = None, way: int | None = None, **faults: object) -> None:
        """Set fields of tests/sim/network.py Link: of all links, of those from ``source``, to ``to``, over ``way``."""
        where = f"{source or '*'} -> {to or '*'}{'' if way is None else f' on link {way}'}"
        self.say(f"links {where}: " + " ".join(f"{k}={v}" for k, v in sorted(faults.items())))
        self.wires.set_links(source, to, way, **faults)

    # --- messages -------------------------------------------------------------------------------------------------------------------

    def submit(self, node: int, size: int = 40, safe: bool = False, quietly: bool = False) -> bytes:
        """One message, unlike every other. Its payload."""
        self._count += 1
        payload = f"{node}/{self._count}/".encode().ljust(size, b"%d" % (self._count % 10))
        if not quietly:
            self.say(f"submit at {node}: {len(payload)} bytes{', safe' * safe}")
        if self.checked:
            self.record.add_submitted(payload, self.hosts[node].processor, safe)
        try:
            self.hosts[node].submit(payload, Order.SAFE if safe else Order.AGREED)
        except VcsError:
            self.record.submitted.pop(payload, None)
            raise
        return payload

    def load(self, every: float, *nodes: int, size: int = 40, safe: bool = False) -> None:
        """From now on a message every so many ms at each of ``nodes`` (all): until ``quiet``. A full queue loses its turn."""
        key = object()
        self._loads.add(key)
        self.say(f"load: {size} bytes every {every:g} ms at {' '.join(map(str, nodes or self.ids))}")

        def again() -> None:
            if key not in self._loads:
                return
            for n in nodes or self.ids:
                if self.nodes[n].up and not self.nodes[n].paused:
                    try:
                        self.submit(n, size, safe, quietly=True)
                    except VcsError:
                        continue
            self.world.after(int(every * MS), again)

        again()

    def quiet(self) -> None:
        self.say("quiet")
        self._loads.clear()

    # --- time and what is expected ----------------------------------------------------------------------------------------------------

    def run(self, ms: float) -> None:
        self.world.run(self.world.now + int(ms * MS))
        self._spins()

    def _spins(self) -> None:
        if self.world.events >= EVENTS_MAX:
            self.fail(f"{EVENTS_MAX} events: something spins")

    def until(self, what: str, condition: Callable[[], bool], within: float) -> float:
        """Run until ``condition``; fails when it does not come within so many ms. The ms that it took."""
        began = self.now
        if not condition() and not self.world.run(self.world.now + int(within * MS), condition):
            self._spins()
            self.fail(f"not within {within:g} ms: {what}")
        took = self.now - began
        self.say(f"{what}: after {took:.3f} ms (at most {within:g})")
        return took

    def state(self, node: int, state: State, within: float = 2000) -> float:
        """Run until a node is in a state."""
        return self.until(f"{node} in {state.name}", lambda: self.hosts[node].core.core.state is state, within)

    def last(self, node: int) -> tuple[int, ...]:
        """Members of the configuration that the node installed last, () while it is between two."""
        host = self.hosts[node]
        seen = self.seen[node].configurations
        if not host.alive or host.core.core.state is not State.OPERATIONAL or not seen:
            return ()
        conf = seen[-1][1]
        current = {h.processor for h in self.hosts.values() if h.alive}
        return tuple(m.nodeid for m in conf.members) if host.processor in conf.members and set(conf.members) <= current else ()

    def ring(self, *members: int, within: float) -> float:
        """All of ``members``, in their present lives, are in one regular configuration of exactly them."""
        want = tuple(sorted(members))

        def together() -> bool:
            return all(self.last(n) == want for n in want) and len({self.hosts[n].core.core.ring.id for n in want}) == 1

        return self.until(f"ring {' '.join(map(str, want))}", together, within)

    def told(self, payloads: Iterable[bytes], *nodes: int, within: float) -> float:
        """All of ``payloads`` reach the applications of ``nodes`` (all)."""
        want = set(payloads)
        at = nodes or self.ids
        text = f"{len(want)} message{'s' * (len(want) > 1)} at {' '.join(map(str, at))}"
        return self.until(text, lambda: all(want <= self.seen[n].payloads for n in at), within)

    def stands(self, ms: float, *nodes: int) -> None:
        """For so long none of ``nodes`` (all) installs anything."""
        at = nodes or self.ids
        before = {n: len(self.seen[n].configurations) for n in at}
        self.run(ms)
        for n in at:
            new = self.seen[n].configurations[before[n]:]
            if new:
                self.fail(f"node {n} installed {[str(c.ring) for _t, c in new]}")
        self.say(f"no configuration at {' '.join(map(str, at))} for {ms:g} ms")

    # --- counting -----------------------------------------------------------------------------------------------------------------

    def rings(self, *nodes: int, since: float) -> list[str]:
        """The regular configurations installed at ``nodes`` (all) since a time, each once."""
        out: dict[str, None] = {}
        for n in nodes or self.ids:
            for t, conf in self.seen[n].configurations:
                if t - self._zero >= since * MS:
                    out[str(conf.ring)] = None
        return list(out)

    def at_most(self, count: int, what: str, got: int) -> None:
        self.say(f"{what}: {got} (at most {count})")
        if got > count:
            self.fail(f"{what}: {got}, more than {count}")

    def gap(self, node: int, since: float) -> float:
        """The longest time in ms that ``node`` delivered nothing, from ``since`` until now."""
        begin = self._zero + int(since * MS)
        times = [begin, *(t for t, _p in self.seen[node].messages if t >= begin), self.world.now]
        return max(b - a for a, b in zip(times, times[1:], strict=False)) / MS

    def packets(self) -> int:
        """Datagrams handed to the network so far, each receiver counted."""
        return self.wires.sent

    def counter(self, node: int, name: str) -> int:
        return int(self.hosts[node].core.core.counters[name])

    def trust_no_more(self) -> None:
        """A member will lie: what it forges breaks promises that are made among honest members only, so the checkers stop here."""
        self.checked = False
        self.judge([])

    def end(self) -> None:
        """The last word of every script: what the checkers see only at the end."""
        self._loads.clear()
        self.say("end")
        for checker in self.checkers:
            checker.at_end()
