# SPDX-License-Identifier: GPL-2.0-only
"""How fast the engine is by itself, without clients: what a change of the hot path costs. `make bench-totem` compares; this profiles.

    python -m tests.perf.engine_speed cores [--profile]       three cores in one process, handed each other's frames directly
    python -m tests.perf.engine_speed udp [--netns]           three processes over 127.0.79.x, or in network namespaces (root)
    python -m tests.perf.engine_speed idle [--netns]          latency from submit to the sender's own delivery on an idle ring

Sizes are of application messages; small ones are bundled as the channel's client does (61 000 bytes), unless --single.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator

from membership.api import Configuration, EngineContext, EngineEvent, Message, Order, Processor
from membership.totem.aes import AesGcm
from membership.totem.core import CoreConfig, Deliver, DeliverMessages, Effect, Send
from membership.totem.driver import TotemEngine
from membership.totem.engine import TotemCore
from membership.totem.limits import Timing
from membership.totem.seal import Sealer
from vcs.config.model import ClusterConfig, NodeConfig, TotemConfig

KEY = bytes(range(32))
SIZES = (64, 1300, 8192, 60_000)
BUNDLE = 61_000
OUTSTANDING = 4 << 20
"Bytes that the flooding node has submitted and not yet been told."
NODES = 3
COMMAND = [sys.executable, "-m", "tests.perf.engine_speed"]
TOTEM = TotemConfig(port=5479)


def bundle(size: int, single: bool) -> tuple[int, bytes]:
    """(messages in a payload, the payload)."""
    count = 1 if single else max(1, BUNDLE // (size + 2))
    return count, os.urandom(size * count)


# --- cores in one process ---------------------------------------------------------------------------------------------------


class Direct:
    """Cores whose frames go straight to each other, in order, and without loss."""

    def __init__(self) -> None:
        who = [Processor(n, n, n) for n in range(1, NODES + 1)]
        self.now = 1
        self.frames: deque[tuple[int, bytes]] = deque()
        self.told = [0] * (NODES + 1)
        self.cores = {
            p.nodeid: TotemCore(CoreConfig(p, tuple(range(1, NODES + 1)), Timing.of(TOTEM)), Sealer("speed", p, AesGcm(KEY))) for p in who}
        for n, core in self.cores.items():
            self.run(n, core.start(self.now))
        while len(self.cores[1].core.ring.members) < NODES or self.cores[1].core.forming is not None:
            self.step()
            if not self.frames:
                self.now += 1_000_000
                for n, core in self.cores.items():
                    self.run(n, core.tick(self.now))

    def run(self, node: int, effects: list[Effect]) -> None:
        for e in effects:
            if isinstance(e, Send):
                self.frames.extend((n, e.data) for n in e.to)
            elif isinstance(e, DeliverMessages):
                self.told[node] += len(e.messages)
            elif isinstance(e, Deliver) and isinstance(e.event, Message):
                self.told[node] += 1

    def step(self) -> None:
        self.now += 20_000
        frames = self.frames
        for _ in range(len(frames)):
            node, data = frames.popleft()
            self.run(node, self.cores[node].datagram(data, self.now))


def cores(size: int, single: bool, seconds: float) -> dict[str, float]:
    direct = Direct()
    count, payload = bundle(size, single)
    core = direct.cores[1]
    limit = max(OUTSTANDING // len(payload), 2)
    submitted = 0
    began = time.process_time()
    while time.process_time() - began < seconds:
        while submitted - direct.told[1] < limit and len(core.core.queue) < 4000:
            submitted += 1
            direct.run(1, core.submit(payload, Order.AGREED, direct.now))
        direct.step()
    spent = time.process_time() - began
    done = min(direct.told[1:])
    return {"messages_s": done * count / spent, "us_per_payload_all_nodes": spent / done * 1e6}


# --- processes over UDP -----------------------------------------------------------------------------------------------------


class Node:
    """One node; the first floods (or speaks now and then), all say at the end what they were told and what it cost them."""

    def __init__(self, args: argparse.Namespace, folder: str) -> None:
        self.nodeid, self.idle, self.seconds, self.size = args.node, args.idle, args.seconds, args.size[0]
        self.count, self.payload = bundle(self.size, args.single)
        self.members = self.told = self.outstanding = 0
        self.flooding = False
        self.answered = asyncio.Event()
        nodes = tuple(NodeConfig(n, f"n{n}", (a,)) for n, a in enumerate(args.addresses.split(","), 1))
        local = Processor(self.nodeid, int.from_bytes(os.urandom(7), "big") + 1, int.from_bytes(os.urandom(7), "big") + 1)
        config = ClusterConfig("speed", nodes, KEY, totem=TOTEM)
        self.engine = TotemEngine(EngineContext(config, local, folder, self.sink, lambda _name, _fields: None))

    def sink(self, event: EngineEvent) -> None:
        if type(event) is Message:
            self.told += 1
            if event.sender.nodeid == self.nodeid:
                self.outstanding -= len(self.payload)
                self.answered.set()
                if self.flooding:
                    self.refill()
        elif isinstance(event, Configuration):
            self.members = len(event.members)

    def refill(self) -> None:
        while self.outstanding < OUTSTANDING:
            self.outstanding += len(self.payload)
            self.engine.submit(self.payload)

    async def pings(self) -> list[float]:
        """Seconds from submit to own delivery, sorted."""
        times: list[float] = []
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            await asyncio.sleep(0.02)
            self.answered.clear()
            at = time.perf_counter()
            self.engine.submit(self.payload)
            await self.answered.wait()
            times.append(time.perf_counter() - at)
        return sorted(times)

    async def run(self) -> None:
        await self.engine.start()
        while self.members < NODES:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        usage, began, first = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), self.told
        times: list[float] = []
        if self.nodeid == 1 and self.idle:
            times = await self.pings()
        else:
            self.flooding = self.nodeid == 1
            if self.flooding:
                self.refill()
            await asyncio.sleep(self.seconds)
            self.flooding = False
        spent, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        rate = (self.told - first) * self.count / spent
        told = {"median_us": round(times[len(times) // 2] * 1e6), "p99_us": round(times[len(times) * 99 // 100] * 1e6)} if times else {}
        status = self.engine.status()
        print(json.dumps({
            "node": self.nodeid, "messages_s": round(rate), "mb_s": round(rate * self.size / 1e6, 1), "cpu": round(cpu / spent, 2),
            "us_cpu_per_payload": round(cpu / max(self.told - first, 1) * 1e6, 1), **told, "counters": status["counters"],
            "io": status["io"]}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # the others may still be measuring
        await self.engine.leave()


async def node(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await Node(args, folder).run()


@contextlib.contextmanager
def namespaces(wanted: bool) -> Iterator[tuple[list[str], list[list[str]]]]:
    """(addresses, what to put before each node's command). With ``wanted``: a namespace per node, joined by a bridge in one more."""
    if not wanted:
        yield [f"127.0.79.{n}" for n in range(1, NODES + 1)], [[] for _ in range(NODES)]
        return
    tag = f"vs{os.getpid() % 10000}"

    def ip(*args: str) -> None:
        subprocess.run(["ip", *args], check=True)

    names = [f"{tag}-{n}" for n in range(NODES + 1)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "name", "br0", "type", "bridge")
        ip("-n", names[0], "link", "set", "br0", "up")
        for n in range(1, NODES + 1):
            ip("-n", names[0], "link", "add", f"p{n}", "type", "veth", "peer", "name", "eth0", "netns", names[n])
            ip("-n", names[0], "link", "set", f"p{n}", "master", "br0", "up")
            ip("-n", names[n], "addr", "add", f"10.79.0.{n}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", names[n], "link", "set", device, "up")
        yield [f"10.79.0.{n}" for n in range(1, NODES + 1)], [["ip", "netns", "exec", name] for name in names[1:]]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def udp(size: int, args: argparse.Namespace, idle: bool) -> None:
    with namespaces(args.netns) as (addresses, prefixes):
        processes = []
        for n, prefix in enumerate(prefixes, 1):
            command = [*prefix, *COMMAND, "node", "--node", str(n), "--size", str(size),
                       "--seconds", str(args.seconds), "--addresses", ",".join(addresses)]
            command += ["--single"] if args.single or idle else []
            command += ["--idle"] if idle else []
            command += ["--profile"] if args.profile else []
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        lines = [p.stdout.readline() for p in processes if p.stdout is not None]
        for p in processes:
            p.communicate()
        for line in lines:
            result = json.loads(line)
            extra = f"  {result['counters']} {result['io']}" if args.verbose else ""
            print(f"  {size:6} B  " + "  ".join(f"{k} {v}" for k, v in result.items() if k not in ("counters", "io")) + extra)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("cores", "udp", "idle", "node"))
    parser.add_argument("--size", type=int, action="append", help="message sizes in bytes")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--single", action="store_true", help="one message per submit")
    parser.add_argument("--netns", action="store_true", help="network namespaces on a bridge with an MTU of 1500")
    parser.add_argument("--profile", action="store_true", help="cProfile, to stderr")
    parser.add_argument("--verbose", action="store_true", help="with the engines' counters")
    parser.add_argument("--node", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--idle", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--addresses", help=argparse.SUPPRESS)
    args = parser.parse_args()
    profile = cProfile.Profile()
    if args.profile and args.mode in ("cores", "node"):
        profile.enable()
    if args.mode == "node":
        asyncio.run(node(args))
    for size in args.size or SIZES:
        if args.mode == "cores":
            print(f"  {size:6} B  " + "  ".join(f"{k} {v:.0f}" for k, v in cores(size, args.single, args.seconds).items()))
        elif args.mode in ("udp", "idle"):
            udp(size, args, args.mode == "idle")
    if args.profile and args.mode in ("cores", "node"):
        profile.disable()
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
