# SPDX-License-Identifier: GPL-2.0-only
"""Three machines under load that one fault after another is done to, and what must hold after each.

Nobody lends a hand: a machine that is off gets its power back, and does then what a distribution's units would do (NODE_SH). The stories
(stories.py) only break things; ``Arena.trial`` judges afterwards, from the disk, the kernels' tracepoints and the power switch's record.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness import Cluster
from harness.errors import LabError
from harness.power import OFF
from harness.spec import Spawned
from vcslab.cluster import MOUNTPOINT, VcsCluster
from vcslab.evidence import Traced, parse_trace, trace_on
from vcslab.story import check, wait_group

from tests.cluster.faults.judge import Held, Life, Started, intervals
from tests.cluster.faults.tuning import (
    BACK_S,
    DEFAULTS,
    LEASE_MS,
    LOCKSPACE,
    NODE_SH,
    NODES,
    PATIENT,
    POWERED,
    RESET_WAIT_NS,
    SOON_S,
    UNASKED_NS,
)
from vcs.model import event_text

RESET = "guest-reset"
"How QEMU says that a machine has reset itself."

@dataclass(frozen=True, slots=True)
class Expect:
    """What a story says about who is fenced, by the power switch or by its own lease: ``must``, ``may``, nobody else; and at least
    ``least`` of all of them."""

    must: frozenset[int] = frozenset()
    may: frozenset[int] = frozenset()
    least: int = 0
    once: bool = False
    "Nobody more than once."


@dataclass(slots=True)
class Row:
    """A line of the table."""

    fault: str
    outcome: str = "ok"
    stall_ms: dict[int, float] = field(default_factory=dict)
    fences: list[str] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Boot:
    """One boot of one node, as far as it has come."""

    node: int
    number: int
    shift_ns: int
    error_ns: int
    folder: Path
    init: Spawned
    load: dict[str, Spawned] = field(default_factory=dict)
    logs: list[tuple[str, str, str]] = field(default_factory=list)
    "(file of the records, writer's log, locker's log) of every load that ran in it."
    traces: list[Traced] = field(default_factory=list)
    "What was read of its tracepoints so far, and up to where."
    traced_to: int = 0

    def trace(self) -> list[Traced]:
        path = self.folder / "trace.log"
        if path.exists() and path.stat().st_size > self.traced_to:
            with open(path, "rb") as file:
                file.seek(self.traced_to)
                whole = file.read().rpartition(b"\n")
            self.traced_to += len(whole[0] + whole[1])
            self.traces += parse_trace(whole[0].decode(errors="replace"), self.shift_ns)
        return self.traces

    def said_up(self) -> bool:
        return self.init.log.exists() and "node.sh: up" in self.init.log.read_text(errors="replace")


class Arena:
    """``form()`` once, then ``trial()`` per fault. Not for several threads; its keeper is one of its own."""

    def __init__(self, lab: Cluster, seed: int, *, power: bool = True) -> None:
        self.lab = lab
        self.power = power
        "False: there is no power switch, the lease fences."
        self.vcs = VcsCluster(lab, extra=(POWERED if power else "") + PATIENT, fence=power)
        self.random = random.Random(seed)
        self.boots: dict[int, Boot] = {}
        self.past: list[Boot] = []
        self.kept_off: set[int] = set()
        "Nodes that get no power for now, by the story's wish."
        self.always_on: set[int] = set()
        "Nodes that have power again as soon as it was cut."
        self.rows: list[Row] = []
        self.broken = False
        self.file = ""
        "What the writers write to; none: no load."
        self.loaded = ""
        "What they wrote to before they were stopped."
        self._count = 0
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._keepers: list[threading.Thread] = []

    # --- life ---------------------------------------------------------------------------------------------------------

    def form(self) -> None:
        """Make the file system, start all nodes, wait until they are whole."""
        self.lab.boot()
        self.vcs.mkfs(NODES[0])
        self.file = ""
        self._keepers = [threading.Thread(target=self._keep, args=(n,), name=f"keeper{n}", daemon=True) for n in NODES]
        for keeper in self._keepers:
            keeper.start()
        self.whole(0)

    def whole(self, since_ns: int) -> int:
        """Wait until nothing is missing: three members, mounted, both groups at rest, every writer has written since. When that was."""
        deadline = time.monotonic() + BACK_S

        def left() -> float:
            return max(1.0, deadline - time.monotonic())

        def loaded() -> bool:
            return all(self.lab[n].on and n in self.boots and self.boots[n].number == self.lab[n].boots and self.boots[n].said_up()
                       and (not self.file or {"load", "writer"} <= self.boots[n].load.keys()) for n in NODES)  # fmt: skip

        self.vcs.wait(loaded, left(), "all nodes to be up, with their load")
        self.vcs.wait_quorate(*NODES, timeout=left())
        for name in ("shared", LOCKSPACE):
            wait_group(self.vcs, NODES, name, timeout=left())
        if not self.file:
            return time.monotonic_ns()
        from_ns = max(since_ns, time.monotonic_ns())
        ends: dict[int, int] = {}

        def written() -> bool:
            for node in NODES:
                boot = self.boots[node]
                if not boot.logs:
                    return False  # it has lost its power meanwhile
                new = [r["host_ns"] for r in self.written(boot, boot.logs[-1][1]) if r["host_ns"] > from_ns]
                if len(new) >= 3:
                    ends[node] = new[0]
            return len(ends) == len(NODES)

        self.vcs.wait(written, left(), "every node to write again")
        return max(ends.values())

    def close(self) -> None:
        self._end.set()
        for keeper in self._keepers:
            keeper.join(60)

    def reset(self) -> None:
        """After a fault that left a mess: all off, everything mended, a new file system."""
        self._end.set()
        self.lab.network.heal()
        self.lab.power.set_working()
        for keeper in self._keepers:
            keeper.join(60)
        self.lab.each(lambda m: m.power_off(), *NODES)
        self._end.clear()
        self.kept_off.clear()
        self.always_on.clear()
        self.lab.splats.forget()
        self.broken = False
        self.form()

    def _keep(self, node: int) -> None:
        """Give the node its power back whenever it has none, and let it come up by itself."""
        machine = self.lab[node]
        while not self._end.wait(0.1):
            boot = self.boots.get(node)
            if machine.on and boot is not None and boot.number == machine.boots:
                if self.file and "load" not in boot.load and boot.said_up():
                    self._quietly(lambda b=boot: self.start_load(b))  # type: ignore[misc]
                continue
            if not machine.on and (node in self.kept_off or not self._may_boot(node)):
                continue
            if not self._quietly(lambda: self._boot(node)):
                machine.power_off()  # it came up half: the next round begins again

    def _may_boot(self, node: int) -> bool:
        """A machine that somebody has cut off stays off until he has seen it: power that comes back behind a fencer's back would look like
        a fence that failed, and he would cut it off again. One that nobody asks about gets its power back after a while."""
        if node in self.always_on:
            return True
        if self.lab.power.serving:
            return False
        gone = max((e.host_ns for e in self.lab.timeline.acts("machine gone", node)), default=0)
        asked = [r for r in self.lab.power.history if r.victim == node and r.answered_ns > gone]
        if asked and asked[-1].action == "status" and asked[-1].code == OFF:
            return True
        return time.monotonic_ns() - max([gone, *(r.answered_ns for r in asked)]) > UNASKED_NS

    @staticmethod
    def _quietly(act: Callable[[], None]) -> bool:
        """Its power may go at any moment."""
        try:
            act()
        except (LabError, OSError):
            return False
        return True

    def _boot(self, node: int) -> None:
        machine = self.lab[node]
        if not machine.on:
            machine.power_on()
        if machine.offset is None:
            machine.wait_ready()
        offset = machine.offset or machine.measure_clock()
        self.vcs.install(node)
        trace_on(self.vcs, node)
        machine.spawn("exec cat /sys/kernel/tracing/trace_pipe", log="trace")
        machine.write("/tmp/node.sh", NODE_SH, mode=0o755)
        init = machine.spawn("exec sh /tmp/node.sh", log="vcsd")
        with self._lock:
            if node in self.boots:
                self.past.append(self.boots[node])
            self.boots[node] = Boot(node, machine.boots, offset.boottime_ns, offset.error_ns, machine.logs.folder, init)

    def start_load(self, boot: Boot) -> None:
        """A writer and a locker on one node."""
        with self._lock:
            self._count += 1
            count = self._count
        machine = self.lab[boot.node]
        log, file = f"locker{count}", self.file
        locker = f"exec python3 -S -m tests.cluster.faults.locker {LOCKSPACE} {MOUNTPOINT} {self.random.randrange(1 << 30)}"
        boot.load["load"] = machine.spawn(locker, log=log)
        writer = self.vcs.start_writer(boot.node, pause_ms=30, name=file)
        boot.logs.append((file, writer, log))
        boot.load["writer"] = machine.spawned[writer]

    def stop_load(self) -> None:
        """SIGTERM to writers and lockers everywhere, wait for their end; no new ones until there is a file to write to."""
        jobs = {n: list(self.boots[n].load.values()) for n in NODES}
        ended = [f"node {n}: {j.name} with status {j.rc}" for n, of in jobs.items() for j in of if j.rc is not None]
        for node in NODES:
            self.lab[node].run(f"kill {' '.join(str(j.pid) for j in jobs[node])}")
        self.vcs.wait(lambda: all(j.rc is not None for of in jobs.values() for j in of), SOON_S, "writers and lockers to end")
        check(not ended, f"they ended by themselves, see the ends of their logs: {ended}")
        self.loaded, self.file = self.file, ""
        for node in NODES:
            self.boots[node].load.clear()

    # --- verbs of the stories -----------------------------------------------------------------------------------------

    def cut(self, *nodes: int) -> int:
        """Power cut, of several at once; host's ns just before."""
        began = time.monotonic_ns()
        self.lab.each(lambda m: m.power_off(), *nodes)
        return began

    def others(self, *nodes: int) -> list[int]:
        return [n for n in NODES if n not in nodes]

    def pick(self, count: int = 1) -> list[int]:
        """Nodes by chance, that is, by the seed."""
        return self.random.sample(NODES, count)

    def wait(self, condition: Callable[[], object], timeout: float, what: str) -> None:
        self.lab.wait(condition, timeout, what, poll=0.01)

    def align(self) -> None:
        """Measure the nodes' clocks anew: an emulated machine's drifts by some 20 ms in a quarter of an hour, and what they have drifted is
        what a lock may be held twice without being seen."""
        for node in NODES:
            offset = self.lab[node].measure_clock()
            self.boots[node].shift_ns, self.boots[node].error_ns = offset.boottime_ns, offset.error_ns

    def traced(self, event: str, nodes: Iterable[int], since_ns: int) -> list[tuple[int, Traced]]:
        """Tracepoints of the switch that ``nodes`` (their current boot) have streamed."""
        found = []
        for node in nodes:
            boot = self.boots.get(node)
            if boot is not None:
                found += [(node, t) for t in boot.trace() if t.event == event and t.host_ns > since_ns]
        return found

    def wait_fenced(self, node: int, since_ns: int, timeout: float = SOON_S) -> None:
        """Until the power switch has cut it off; without one, until it has reset itself."""
        lease = 0 if self.power else LEASE_MS / 1000
        self.wait(lambda: node in self.fenced(since_ns), timeout + lease, f"node {node} to be fenced")

    def fenced(self, since_ns: int) -> list[int]:
        """Whom the power switch was asked for after ``since_ns`` and has cut off; without one, who has reset itself."""
        if not self.power:
            return [e.node for e in self.lab.timeline.acts("machine gone") if e.host_ns > since_ns and RESET in e.details]
        return [r.victim for r in self.lab.power.history if r.action == "off" and r.code == 0 and r.asked_ns > since_ns]

    def short_lease(self, *nodes: int) -> frozenset[int]:
        """Those of ``nodes`` whose lease may run out before a daemon is back, or a network of ten seconds ago: all, or none."""
        return frozenset(nodes) if DEFAULTS and not self.power else frozenset()

    # --- evidence -----------------------------------------------------------------------------------------------------

    def lives(self) -> list[Life]:
        ons = {(e.node, int(e.details.removeprefix("boot="))): e.host_ns for e in self.lab.timeline.acts("power on")}
        ends = {n: sorted(e.host_ns for e in self.lab.timeline.acts("machine gone", n)) for n in NODES}
        return [Life(n, boot, on, next((g for g in ends[n] if g > on), 0)) for (n, boot), on in sorted(ons.items())]

    def proofs(self) -> dict[int, list[int]]:
        """When a fence had been answered, or the node had been given power anew; with self-fencing, when it had reset itself, or its lease
        and all that is waited on top was over."""
        booted = {n: [e.host_ns for e in self.lab.timeline.acts("power on", n)] for n in NODES}
        fenced = {n: [r.answered_ns for r in self.lab.power.history if r.victim == n and r.code == 0 and r.action == "off"] for n in NODES}
        ends = {n: [] if self.power else self.lab.timeline.acts("machine gone", n) for n in NODES}
        gone = {n: [e.host_ns + (0 if RESET in e.details else RESET_WAIT_NS) for e in ends[n]] for n in NODES}
        return {n: sorted(booted[n] + fenced[n] + gone[n]) for n in NODES}

    def starts(self, since_ns: int) -> list[Started]:
        """Every start that a kernel was given. The tracepoint says when; which members it named says the log of any daemon that gave it (a
        node that lost power may have kept its own last line to itself)."""
        everything = [*self.past, *self.boots.values()]
        named: dict[tuple[str, str], tuple[int, ...]] = {}
        for boot in everything:
            named |= _started(boot.folder / "events.jsonl")
        found = []
        for boot in everything:
            for t in boot.trace():
                if t.event == "vcs_group_start" and t.host_ns > since_ns:
                    key = (t.fields["group"], event_text(int(t.fields["event"])))
                    if key in named or boot is self.boots[boot.node]:
                        found.append(Started(t.host_ns, boot.node, *key, named[key]))
        return found

    def held(self, file: str) -> list[Held]:
        found: list[Held] = []
        for boot in [*self.past, *self.boots.values()]:
            for of, _, log in boot.logs:
                path = boot.folder / f"{log}.log"
                if of == file and path.exists():
                    found += intervals(f"node{boot.node}/{boot.number}", path.read_text(errors="replace").splitlines(), boot.shift_ns)
        return found

    def written(self, boot: Boot, log: str) -> list[dict[str, int]]:
        """The records that a writer of that boot had fsynced, with ``host_ns``."""
        path = boot.folder / f"{log}.log"
        found = []
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                found.append(record | {"host_ns": record["t"] + boot.shift_ns})
        return found

    def writers(self, file: str) -> list[tuple[Boot, str]]:
        return [(boot, log) for boot in [*self.past, *self.boots.values()] for of, log, _ in boot.logs if of == file]


def _started(path: Path) -> dict[tuple[str, str], tuple[int, ...]]:
    """(group, event) -> members of the starts in an event log."""
    found: dict[tuple[str, str], tuple[int, ...]] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        if '"group_start"' in line:
            with contextlib.suppress(ValueError, KeyError):
                record = json.loads(line)
                found[record["group"], record["id"]] = tuple(record["members"])
    return found
