# SPDX-License-Identifier: GPL-2.0-only
"""Machines, shared disk, fence device and an engine, in one world: the upper half of the simulation.

The cluster only wires and records. What must hold is judged by the checkers (tests/sim/checkers/), which see the physical truth: which
machine is on, which boot of it has locks, what every switch was ordered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.coordinator import Coordinator
from bridge.coordinator import api as co
from tests.sim.disk import SharedDisk
from tests.sim.node import BOOT_NS, Daemon, EnginePort, Machine
from tests.sim.witness import WitnessHost
from tests.sim.world import MS, World
from vcs.config.model import ClusterConfig
from vcs.errors import SwitchError
from vcs.model import GroupFlags, Level

if TYPE_CHECKING:
    from tests.sim.checkers.groups import GroupCheckers

MakeCoordinator = Callable[..., Coordinator]
"Called with configuration, processor, record, and ``self_fence``."


DEAD = "dead"
"A method of this name never works: another one has to."


class FenceDevice:
    """A power switch: cycles the plug of a node. Truthful, but slow or dead when told so."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.mode = "ok"
        "ok, slow, or fail."
        self.cycles = True
        "Power comes back by itself."
        self.calls = 0
        self.fresh = 0
        "How often it hit another incarnation than the one that was meant."
        self._running: dict[tuple[Daemon, int, int], int] = {}
        "Who fences which incarnation -> the call."

    def launch(self, daemon: Daemon, what: co.LaunchFence) -> None:
        """An agent process: it outlives the daemon that launched it, though nobody then hears its result."""
        self.calls += 1
        slow = self.mode == "slow"
        delay = self.cluster.rng.randint(2000 * MS, 9000 * MS) if slow else self.cluster.rng.randint(30 * MS, 400 * MS)
        call = self.calls
        self._running[daemon, what.nodeid, what.incarnation] = call
        self.cluster.after(delay, lambda: self._act(daemon, what, call))

    def cancel(self, daemon: Daemon, what: co.CancelFence) -> None:
        """Called off, and its agent with it (SAFETY S1)."""
        self._running.pop((daemon, what.nodeid, what.incarnation), None)

    def _works(self, what: co.LaunchFence) -> bool:
        methods = self.cluster.config.fence_methods(what.nodeid)
        return self.mode != "fail" and methods[what.method].name != DEAD

    def _act(self, daemon: Daemon, what: co.LaunchFence, call: int) -> None:
        if not daemon.machine.on or daemon.machine.boot != daemon.who.boot:
            return  # the agent's own machine was reset
        if not daemon.dead and self._running.get((daemon, what.nodeid, what.incarnation)) != call:
            return
        ok = self._works(what)
        if ok:
            target = self.cluster.machines[what.nodeid]
            if target.on and target.boot != what.incarnation:
                self.fresh += 1
            target.power_off(BOOT_NS if self.cycles else None)
        detail = "power cycled" if ok else "the device does not answer"
        if not daemon.dead:
            daemon.feed(co.FenceDone(what.nodeid, what.incarnation, ok, detail))


class Cluster:
    """``machines`` by nodeid; ``disk`` and ``device`` are shared."""

    def __init__(
        self,
        world: World,
        config: ClusterConfig,
        engine: EnginePort,
        groups: tuple[tuple[str, Level, GroupFlags], ...],
        make_coordinator: MakeCoordinator = Coordinator,
    ) -> None:
        self.world, self.config, self.engine, self.groups = world, config, engine, groups
        self.rng = world.rng("cluster")
        self.make_coordinator = make_coordinator
        self.disk = SharedDisk()
        self.device = FenceDevice(self)
        self.witness = WitnessHost(self, config.quorum.witness.timeout_ms) if config.quorum.witness is not None else None
        self.engines = 0
        self.checkers: GroupCheckers | None = None
        self.dry: frozenset[int] = frozenset()
        "Nodes whose module only counts the resets of a lease that has run out."
        self.machines = {n.id: Machine(self, n.id) for n in config.nodes}
        self.refusals = 0

    @property
    def now(self) -> int:
        return self.world.now

    def after(self, delay_ns: int, call: Callable[[], None]) -> None:
        self.world.after(delay_ns, call)

    def at(self, when_ns: int, call: Callable[[], None]) -> None:
        self.world.at(when_ns, call)

    def trace(self, *fields: object) -> None:
        self.world.trace(*fields)

    @property
    def check(self) -> GroupCheckers:
        assert self.checkers is not None
        return self.checkers

    # --- what the machines report -----------------------------------------------------------------------------------------
    def effect(self, daemon: Daemon, effect: co.Effect) -> None:
        if isinstance(effect, co.Notice):
            self.trace(daemon.machine.nodeid, effect.event, *(f"{k}={v}" for k, v in effect.fields.items()))
        elif not isinstance(effect, co.Submit | co.RenewLease | co.WakeAt | co.Persist | co.AskWitness):
            self.trace(daemon.machine.nodeid, effect)
        self.check.effect(daemon, effect)

    def handled(self, daemon: Daemon, effects: list[co.Effect]) -> None:
        self.check.handled(daemon, effects)

    def refused(self, daemon: Daemon, effect: co.Effect, error: SwitchError) -> None:
        self.refusals += 1
        self.trace(daemon.machine.nodeid, "refused", effect, error.errno, error.message)
        self.check.refused(daemon, effect, error)

    def observed(self, machine: Machine, what: str, group: str, number: int) -> None:
        self.check.observed(machine, what, group, number)

    def recovered(self, machine: Machine, group: str, event: int, members: frozenset[tuple[int, int]]) -> None:
        self.trace(machine.nodeid, "recovered", group, event, sorted(members))
        self.check.recovered(machine, group, event, members)

    def left(self, machine: Machine, group: str) -> None:
        self.trace(machine.nodeid, "left", group)
        self.check.left(machine, group)

    def wrote(self, machine: Machine, group: str, lock: int) -> None:
        self.disk.write(self.now, machine.incarnation, group, lock)
        self.check.wrote(machine, group, lock)

    def locked(self, machine: Machine, group: str, lock: int) -> None:
        self.check.locked(machine, group, lock)

    def reset(self, machine: Machine) -> None:
        """By its own kernel."""
        self.trace(machine.nodeid, "reset")
        self.check.reset(machine)

    def machine_off(self, machine: Machine) -> None:
        self.disk.power_off(machine.incarnation)
        self.check.machine_off(machine)

    # --- liveness -----------------------------------------------------------------------------------------------------------
    def unsettled(self) -> list[str]:
        """Why the cluster is not whole yet; empty when every machine is in, and every group has finished with all of them."""
        found = []
        all_nodes = set(self.machines)
        for nodeid, machine in sorted(self.machines.items()):
            if machine.daemon is None:
                found.append(f"node {nodeid} has no daemon ({'on' if machine.on else 'off'})")
                continue
            c = machine.daemon.coordinator
            if not c.deciding or set(c.state.ring_members) != all_nodes or not all(c.state.admitted(n) for n in all_nodes):
                found.append(f"node {nodeid}: {[w['text'] for w in c.why()] or c.mode}")
            elif c.state.obligations:
                found.append(f"node {nodeid}: obligations {sorted(c.state.obligations)}")
            for name, _level, _flags in self.groups:
                everybody = {n for n, m in self.machines.items() if m.groups is None or name in m.groups}
                if nodeid not in everybody:
                    continue
                mount = machine.glue.mounts.get(name)
                held = {g.name: g for g in machine.daemon.port.groups("c")}.get(name)
                if mount is None or held is None or held.phase.name != "FINISH" or {m.nodeid for m in held.finished_members} != everybody:
                    found.append(f"node {nodeid}: group {name} is not whole: {held and (held.state.name, held.phase.name)}")
        return found
