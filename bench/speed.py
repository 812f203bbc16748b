# SPDX-License-Identifier: GPL-2.0-only
"""Throughput and idle latency at three nodes, delivered to a client process on each node.

One node that is not the representative sends as fast as its engine takes it; what counts is the rate of delivery at the slowest client.
Latency is from a client's send to its own delivery on a ring that rests; the nodes take turns in blocks. The contestants are run in
rounds, one after the other, so that what else the machine does meets all of them. Ours has its encryption on, corosync's is off.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.contest import Program, Ring, Tally
from bench.corosync import Corosync, CorosyncNode, Setting
from bench.lab import Lab
from bench.ours import Ours
from bench.report import Metric, Report

NODES = 3
SENDER = 2
FLOOD_SECONDS = 3.0
PINGS = 60
"Of each node in each round."
GAP_US = 50_000
PING_BYTES = 64
PATIENCE_SECONDS = 120.0
ATTEMPTS = 3


@dataclass(slots=True)
class Found:
    """One contestant's samples over the rounds."""

    rates: dict[int, list[float]] = field(default_factory=dict)
    latencies: dict[str, list[list[float]]] = field(default_factory=dict)
    "kind -> per round -> microseconds"
    disturbed: int = 0
    "Floods during which the ring changed; they were repeated."


Clients = dict[int, Program]


def ends(clients: Clients, marks: dict[int, int]) -> dict[int, Tally]:
    return {n: c.wait("end mark", Tally.of, marks[n], PATIENCE_SECONDS) for n, c in clients.items()}


class Disturbed(Exception):
    """The ring changed in the middle of a measurement."""


def flood(ring: Ring, clients: Clients, size: int) -> float:
    """Messages per second at the slowest client. Raises Disturbed; RuntimeError when messages are missing though nothing changed."""
    ring.mark()
    marks = {n: c.mark() for n, c in clients.items()}
    clients[SENDER].say(f"flood {size} {FLOOD_SECONDS}")
    tallies = ends(clients, marks)
    changes = [f"  node {n}: {line}" for n, node in ring.nodes.items() for line in (*node.configurations(), *node.noticed())]
    if any(node.configurations() for node in ring.nodes.values()):
        raise Disturbed("\n".join(changes))
    if len({t.count for t in tallies.values()}) != 1:
        raise RuntimeError(f"the clients were not delivered the same: {tallies}\n" + "\n".join(changes))
    return min(t.rate for t in tallies.values())


def pings(clients: Clients) -> dict[str, list[float]]:
    """Latencies in microseconds by kind: at the sender, at the last of all, and at the sender when another sent before."""
    own: list[float] = []
    everybody: list[float] = []
    for sender in clients:
        marks = {n: c.mark() for n, c in clients.items()}
        clients[sender].say(f"ping {PINGS} {GAP_US} {PING_BYTES}")
        tallies = ends(clients, marks)
        own += [ns / 1e3 for ns in tallies[sender].latencies]
        everybody += [max(each) / 1e3 for each in zip(*(t.latencies for t in tallies.values()), strict=True)]
    turns: list[float] = []
    rng = random.Random(1)
    last = 0
    for _ in range(PINGS):
        last = rng.choice([n for n in clients if n != last])
        time.sleep(rng.uniform(0.5, 1.5) * GAP_US / 1e6)
        mark = clients[last].mark()
        clients[last].say(f"one {PING_BYTES}")
        turns.append(clients[last].wait("pong", lambda line: int(line[5:]) / 1e3 if line.startswith("pong ") else None, mark))
    for client in clients.values():
        mark = client.mark()
        client.say("mark")
        client.wait("end mark", Tally.of, mark)
    return {"": own, "_all": everybody, "_turns": turns}


def clients_of(ring: Ring) -> Clients:
    """A client on each node; corosync's are there already, and our engine without a channel is its own."""
    if isinstance(ring, Ours):
        if not ring.channel:
            return {n: node.engine for n, node in ring.nodes.items()}
        return {n: ring.client(ring.lab.machines[n]) for n in ring.nodes}
    found: Clients = {}
    for n, node in ring.nodes.items():
        assert isinstance(node, CorosyncNode)
        assert node.watcher is not None
        found[n] = node.watcher
    return found


def undisturbed(ring: Ring, clients: Clients, size: int, found: Found) -> float:
    """A flood during which the ring stayed as it was; those before it are counted and told."""
    for _ in range(ATTEMPTS):
        try:
            return flood(ring, clients, size)
        except Disturbed as why:
            found.disturbed += 1
            print(f"  {ring.name}: {size} B: the ring changed:\n{why}", flush=True)
            ring.await_all(ring.nodes)
    raise RuntimeError(f"{ring.name} does not stay together while {size} bytes are sent")


def one_round(ring: Ring, found: Found, kinds: Sequence[str], sizes: Sequence[int]) -> None:
    ring.start()
    clients = clients_of(ring)
    try:
        if "throughput" in kinds:
            for size in sizes:
                rate = undisturbed(ring, clients, size, found)
                found.rates.setdefault(size, []).append(rate)
                print(f"  {ring.name}: {size} B: {rate:,.0f} msg/s", flush=True)
        if "latency" in kinds:
            for kind, values in pings(clients).items():
                found.latencies.setdefault(kind, []).append(values)
            print(f"  {ring.name}: idle {statistics.median(found.latencies[''][-1]):.0f} us", flush=True)
    finally:
        if isinstance(ring, Ours) and ring.channel:
            for client in clients.values():
                client.end()


def percentile(values: Sequence[float], of_100: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * of_100 // 100)]


def run(report: Report, kinds: Sequence[str], sizes: Sequence[int], runs: int, peer: bool) -> None:
    makers: dict[str, Callable[[Lab], Ring]] = {
        "ours": lambda lab: Ours(lab, channel=True),
        "ours_engine": Ours,
    }
    if peer:
        for setting in (Setting("udpu"), Setting("knet")):
            makers[setting.name] = lambda lab, setting=setting: Corosync(lab, setting)  # type: ignore[misc]
            report.command(f"corosync -f, {setting.name}, {NODES} nodes, bench/cpg_client.c on each")
    found = {name: Found() for name in makers}
    for _ in range(runs):
        for name, make in makers.items():
            with Lab(NODES) as lab, make(lab) as ring:
                one_round(ring, found[name], kinds, sizes)
    peers = [f for name, f in found.items() if not name.startswith("ours")]
    names = {id(f): name for name, f in found.items()}
    for size in sizes if "throughput" in kinds else ():
        best = max(peers, key=lambda f: statistics.median(f.rates[size]), default=None)
        theirs, name = (best.rates[size], names[id(best)]) if best is not None else ([], "")
        report.add(
            Metric.of(f"throughput_{size}", "msg/s", found["ours"].rates[size], theirs, name),
            Metric.of(f"throughput_{size}_engine", "msg/s", found["ours_engine"].rates[size], theirs, name,
                      "ours without the client process"))
    if "throughput" in kinds:
        report.add(Metric.of(
            "throughput_disturbed", "count", [float(found[side].disturbed) for side in ("ours", "ours_engine")],
            [float(f.disturbed) for f in peers], ", ".join(names[id(f)] for f in peers), "floods during which the ring changed"))
    if "latency" in kinds:
        report_latency(report, found, peers, names)
    report.write()


def report_latency(report: Report, found: dict[str, Found], peers: Sequence[Found], names: dict[int, str]) -> None:
    for side, suffix in (("ours", ""), ("ours_engine", "_engine")):
        for kind in ("", "_all", "_turns"):
            for what, of_100 in (("median", 50), ("p99", 99)):
                ours = [percentile(values, of_100) for values in found[side].latencies[kind]]
                per_peer = {id(f): [percentile(values, of_100) for values in f.latencies[kind]] for f in peers}
                best = min(per_peer, key=lambda i: statistics.median(per_peer[i]), default=0)
                report.add(Metric.of(
                    f"latency_idle{kind}_{what}{suffix}", "us", ours, per_peer.get(best, []), names.get(best, ""),
                    f"{PINGS} pings a run and node"))
