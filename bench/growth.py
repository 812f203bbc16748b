# SPDX-License-Identifier: GPL-2.0-only
"""How costs grow with the number of nodes: simulated from 2 to 64, and real up to 16.

Per size: the time, packets and bytes of forming a ring, of a host that falls silent, of one that leaves, of one that comes back; and the
packets and bytes of the ring at rest. The simulation runs the core as it is, on links of 0.2 to 0.3 ms, without the cost of computing;
in the lab all nodes share this machine's cores, so times there grow with n for want of cores. Bytes are with Ethernet, IP and UDP headers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from bench.lab import Lab
from bench.ours import Ours
from bench.report import Metric, Report
from membership.api import Configuration, EngineEvent, Kind, Processor
from tests.sim.engine_node import EngineHost, Node
from tests.sim.network import Network
from tests.sim.world import MS, SECOND, World

SIMULATED = (2, 3, 4, 8, 16, 32, 64)
REAL = (2, 3, 4, 8, 16)
IDLE_SECONDS = 10
SETTLE_SECONDS = 1
PATIENCE_SECONDS = 60
EVENTS_MAX = 100_000_000
HEADERS = 14 + 20 + 8
SEGMENT = 1472
"Bytes of UDP payload in one packet: an Ethernet frame of 1500 less IP and UDP headers."


@dataclass(frozen=True, slots=True)
class Cost:
    """What a change cost all nodes together until the last one had the new configuration."""

    ms: float
    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class Row:
    where: str
    nodes: int
    form: Cost
    silent: Cost
    leave: Cost
    rejoin: Cost
    idle_packets: float
    "Packets per second and node of a ring at rest."
    idle_bytes: float
    idle_packets_max: float
    "Of the busiest node."


class Counting(Network):
    """A network that counts what is sent, by sender."""

    def __init__(self, world: World, nodes: Iterable[int]) -> None:
        super().__init__(world, nodes)
        self.packets = dict.fromkeys(self.nodes, 0)
        self.octets = dict.fromkeys(self.nodes, 0)

    def send(self, source: int, to: Iterable[int], data: bytes, *link: int) -> None:
        targets = tuple(to)
        segments = -(-len(data) // SEGMENT)
        self.packets[source] += len(targets) * segments
        self.octets[source] += len(targets) * (len(data) + HEADERS * segments)
        super().send(source, targets, data, *link)


class Simulated:
    """A ring in the simulator."""

    def __init__(self, size: int) -> None:
        self.world = World(f"growth/{size}", EVENTS_MAX)
        self.network = Counting(self.world, range(1, size + 1))
        self.members: dict[int, tuple[int, ...]] = {}
        self.nodes = {n: Node(self.world, self.network, n, self._program) for n in self.network.nodes}

    def _program(self, node: Node, processor: Processor) -> EngineHost:
        def sink(event: EngineEvent) -> None:
            if isinstance(event, Configuration) and event.kind is Kind.REGULAR:
                self.members[node.nodeid] = tuple(m.nodeid for m in event.members)

        return EngineHost(node, processor, sink)

    def until(self, members: tuple[int, ...], deed: Callable[[], None]) -> Cost:
        """Do it, and run until all ``members`` have the ring of just them."""
        began, packets, octets = self.world.now, sum(self.network.packets.values()), sum(self.network.octets.values())
        deed()
        if not self.world.run(began + PATIENCE_SECONDS * SECOND, lambda: all(self.members.get(n) == members for n in members)):
            raise RuntimeError(f"no ring of {members} in {PATIENCE_SECONDS} simulated seconds: {self.members}")
        return Cost((self.world.now - began) / MS, sum(self.network.packets.values()) - packets, sum(self.network.octets.values()) - octets)

    def rest(self, seconds: float) -> None:
        self.world.run(self.world.now + int(seconds * SECOND))

    def leave(self, number: int) -> None:
        node = self.nodes[number]
        assert isinstance(node.program, EngineHost)
        node.program.leave()
        node.crash()
        self.members.pop(number)


def simulate(size: int) -> Row:
    ring = Simulated(size)
    everybody, rest = tuple(range(1, size + 1)), tuple(range(1, size))

    def start_all() -> None:
        for node in ring.nodes.values():
            node.start()

    form = ring.until(everybody, start_all)
    ring.rest(SETTLE_SECONDS)
    packets, octets = dict(ring.network.packets), dict(ring.network.octets)
    ring.rest(IDLE_SECONDS)
    idle = [(ring.network.packets[n] - packets[n]) / IDLE_SECONDS for n in everybody]
    idle_bytes = sum(ring.network.octets[n] - octets[n] for n in everybody) / IDLE_SECONDS / size
    silent = ring.until(rest, ring.nodes[size].crash)
    ring.members.pop(size)
    ring.rest(SETTLE_SECONDS)
    rejoin = ring.until(everybody, ring.nodes[size].start)
    ring.rest(SETTLE_SECONDS)
    leave = ring.until(rest, lambda: ring.leave(size))
    return Row("simulated", size, form, silent, leave, rejoin, sum(idle) / size, idle_bytes, max(idle))


def measure(size: int) -> Row:
    """The same in the lab; counters are those of the machines' network interfaces."""
    with Lab(size) as lab, Ours(lab) as ring:
        def sent() -> list[tuple[int, int]]:
            return [m.counters() for m in lab.machines.values()]

        def until(members: Iterable[int], deed: Callable[[], int]) -> Cost:
            before = sent()
            ring.mark()
            began = deed()
            formed = ring.await_all(members)
            after = sent()
            packets, octets = (sum(a[i] - b[i] for a, b in zip(after, before, strict=True)) for i in (0, 1))
            return Cost((max(f.time_ns for f in formed.values()) - began) / 1e6, packets, octets)

        def start_all() -> int:
            for node in ring.nodes.values():
                node.start()
            return time.monotonic_ns()

        last, rest = ring.nodes[size], list(range(1, size))
        form = until(ring.nodes, start_all)
        time.sleep(SETTLE_SECONDS)
        before = sent()
        time.sleep(IDLE_SECONDS)
        idle = [((a[0] - b[0]) / IDLE_SECONDS, (a[1] - b[1]) / IDLE_SECONDS) for a, b in zip(sent(), before, strict=True)]
        silent = until(rest, last.machine.cut)

        def mend() -> int:
            last.machine.mend()
            return time.monotonic_ns()

        time.sleep(SETTLE_SECONDS)
        rejoin = until(ring.nodes, mend)
        time.sleep(SETTLE_SECONDS)
        leave = until(rest, last.leave)
    packets = [p for p, _octets in idle]
    return Row("real", size, form, silent, leave, rejoin, sum(packets) / size, sum(o for _p, o in idle) / size, max(packets))


def table(rows: Iterable[Row]) -> str:
    head = ("where", "nodes", "form", "silent host", "leave", "rejoin", "at rest, packets/s per node (busiest)", "bytes/s per node")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        costs = [f"{c.ms:.1f} ms, {c.packets} packets, {c.octets / 1024:.1f} KiB" for c in (row.form, row.silent, row.leave, row.rejoin)]
        idle = f"{row.idle_packets:.1f} ({row.idle_packets_max:.1f})"
        lines.append("| " + " | ".join((row.where, str(row.nodes), *costs, idle, f"{row.idle_bytes:.0f}")) + " |")
    return "\n".join(lines) + "\n"


def run(report: Report) -> None:
    rows: list[Row] = []
    for size in SIMULATED:
        rows.append(simulate(size))
        print("  " + table(rows).splitlines()[-1], flush=True)
    for size in REAL:
        rows.append(measure(size))
        print("  " + table(rows).splitlines()[-1], flush=True)
    report.tables["growth"] = [asdict(row) for row in rows]
    report.path.with_name("totem-growth.md").write_text(table(rows))
    for where in ("simulated", "real"):
        of = [row for row in rows if row.where == where]
        idle = [row.idle_packets for row in of]
        report.add(Metric.of(
            f"growth_idle_packets_{where}", "/s", idle, note=f"per node, at rest, n = {', '.join(str(row.nodes) for row in of)}; "
            f"largest over smallest: {max(idle) / min(idle):.2f}"))
