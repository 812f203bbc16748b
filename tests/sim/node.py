# SPDX-License-Identifier: GPL-2.0-only
"""A whole machine: a kernel with the switch, the daemon (engine and the real coordinator), the consumer, its part of the disk.

What dies together: a power cut takes everything and the boot incarnation; kill -9 of the daemon takes the provider's socket, the
engine and the coordinator's memory. The record on disk and the engine's ring sequence survive both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from bridge.coordinator import api as co
from bridge.coordinator.lease import announce
from bridge.seat import give_back
from membership.api import Configuration, EngineEvent, Kind, Processor
from tests.fakes.switch import CAPABILITY_RESET, FakeSwitch
from tests.fakes.switch_state import FakeGroup
from tests.sim.glue import HANDLE, WORK_NS, Glue
from tests.sim.world import Violation
from vcs.errors import SwitchError
from vcs.model import GroupFlags, GroupState, Level, ProviderState

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

FSYNC_NS = (200_000, 6_000_000)
RESTART_NS = (100_000_000, 2_000_000_000)
"The service manager restarts a dead daemon."
RESTART_LATE_NS = (3_000_000_000, 12_000_000_000)
LATE = 0.15
GASPS = 0.8
"How often anybody hears the last gasp of a daemon."
BOOT_NS = (1_000_000_000, 4_000_000_000)
REREAD_NS = 5_000_000_000
GROUPS: tuple[tuple[str, Level, GroupFlags], ...] = (
    ("gfs", Level.LOCK_MANAGER, GroupFlags.NEEDS_FENCE | GroupFlags.PERSISTENT),
    ("svc", Level.USER, GroupFlags.NONE),
)


class EnginePort(Protocol):
    """What a machine needs of the engine's side of the world."""

    def start(self, who: Processor, sink: Callable[[EngineEvent], None]) -> None: ...
    def stop(self, nodeid: int, gasp: bool = False) -> None: ...
    def submit(self, nodeid: int, payload: bytes) -> None: ...
    def leave(self, nodeid: int) -> None: ...
    def pause(self, nodeid: int, paused: bool) -> None: ...


class Daemon:
    """One vcsd process: the driver's queue and the real coordinator."""

    def __init__(self, machine: Machine, engine_incarnation: int) -> None:
        self.machine, self.world = machine, machine.world
        self.who = Processor(machine.nodeid, machine.boot, engine_incarnation)
        self.dead = self._busy = self._saving = self._read_asked = self._dirty = False
        self.transitional = True
        "The engine's last word that the coordinator has heard was no regular configuration."
        self.compared: object = None
        "What the checkers have compared last."
        self.born_with_lost = any(g.started for g in machine.lost_groups())
        self.port = machine.switch.provider()
        self.port.on_hints = self._hinted
        self.port.hints()
        config = self.world.config
        said = announce(config, bool(self.port.info().capabilities & CAPABILITY_RESET))
        try:
            self.session = self.port.attach(HANDLE, config.lease.lease_ms, said.grace_ms).session
        except SwitchError:
            self.dead = True  # no process: hints that are on their way reach nobody
            self.port.close()
            raise
        self.coordinator = self.world.make_coordinator(config, self.who, machine.record, self_fence=said)
        self._inputs: deque[co.Input] = deque()
        self._effects: deque[co.Effect] = deque()
        self.feed(co.LocalGroups(tuple(self.port.groups(HANDLE))))
        machine.later((0, 1_000_000), lambda: self.world.engine.start(self.who, self.sink) if not self.dead else None)
        self._reread()

    def sink(self, event: EngineEvent) -> None:
        self.feed(event)

    def feed(self, what: co.Input) -> None:
        if self.dead:
            return
        self._inputs.append(what)
        if self.machine.paused:
            self.machine.later((0, 0), self._pump)
        else:
            self._pump()

    def _pump(self) -> None:
        if self._busy or self.machine.paused:
            return
        self._busy = True
        while not (self._saving or self.dead):
            if self._effects:
                self._do(self._effects.popleft())
            elif self._inputs:
                what = self._inputs.popleft()
                if isinstance(what, Configuration):
                    self.transitional = what.kind is Kind.TRANSITIONAL
                effects = self.coordinator.handle(what, self.world.now)
                self.world.handled(self, effects)
                self._effects.extend(effects)
            elif self._dirty:
                self._dirty = False  # read only when nothing is under way: what is read is what our last order led to
                self._inputs.append(co.LocalGroups(tuple(self.port.groups(HANDLE))))
            else:
                break
        self._busy = False

    # --- effects ----------------------------------------------------------------------------------------------------------
    def _do(self, effect: co.Effect) -> None:
        world = self.world
        world.effect(self, effect)
        if isinstance(effect, co.Submit):
            world.engine.submit(self.machine.nodeid, effect.payload)
        elif isinstance(effect, co.Persist):
            self._saving = True
            self.machine.later(FSYNC_NS, lambda: self._saved(effect.record))
        elif isinstance(effect, co.CancelFence):
            world.device.cancel(self, effect)
        elif isinstance(effect, co.LaunchFence):
            world.device.launch(self, effect)
        elif isinstance(effect, co.AskWitness):
            if world.witness is not None:
                world.witness.ask(self, effect)
        elif isinstance(effect, co.WakeAt):
            world.at(effect.at_ns, lambda: self.feed(co.Tick()))
        elif isinstance(effect, co.LeaveDone):
            self.machine.left_cluster()
        elif isinstance(effect, co.RestartReady):
            self.machine.daemon_restarts()
        elif not isinstance(effect, co.Notice):
            try:
                self._tell(effect)
            except SwitchError as error:
                world.refused(self, effect, error)
                if not self._attached():
                    self.machine.daemon_died()
                else:
                    self.machine.later((20_000_000, 100_000_000), self._read)

    def _tell(self, effect: co.Effect) -> None:
        port, session = self.port, self.session
        if isinstance(effect, co.InstallView):
            port.view_set(HANDLE, session, effect.ring, effect.quorate, effect.members)
        elif isinstance(effect, co.StopGroup):
            port.group_stop(HANDLE, session, effect.name, effect.event)
        elif isinstance(effect, co.StartGroup):
            port.group_start(HANDLE, session, effect.name, effect.event, effect.members)
        elif isinstance(effect, co.FinishGroup):
            port.group_finish(HANDLE, session, effect.name, effect.event)
        elif isinstance(effect, co.LeftGroup):
            port.group_left(HANDLE, session, effect.name, effect.error)
        elif isinstance(effect, co.Fenced):
            port.fenced(HANDLE, session, effect.nodeid, effect.incarnation)
        elif isinstance(effect, co.RenewLease) and self.world.config.lease.lease_ms:
            port.lease_renew(HANDLE, session, effect.valid_from_ns)
        elif isinstance(effect, co.Freeze) and self.world.config.lease.lease_ms:
            port.lease_freeze(HANDLE, session, effect.until_ns)

    def _saved(self, record: bytes) -> None:
        if not self.dead:
            self.machine.record = record
            self._saving = False
            self._pump()

    # --- the switch, read -------------------------------------------------------------------------------------------------
    def _attached(self) -> bool:
        return any(c.handle == HANDLE and c.provider_state is ProviderState.ATTACHED for c in self.port.clusters())

    def _hinted(self) -> None:
        if not self._read_asked:
            self._read_asked = True
            self.machine.later((20_000, 300_000), self._read)

    def _read(self) -> None:
        self._read_asked = False
        if self.dead:
            return
        self.port.hints()
        if not self._attached():
            self.machine.daemon_died()  # the lease ran out: the seat is lost, the process ends
            return
        self._dirty = True
        self._pump()

    def _reread(self) -> None:
        if not self.dead:
            self._hinted()
            self.machine.later((REREAD_NS, REREAD_NS), self._reread)

    def kill(self, gasp: bool = True) -> None:
        """``gasp``: its guardian told the others, if anything got through."""
        self.dead = True
        self.world.engine.stop(self.machine.nodeid, gasp)
        self.port.close()


class Machine:
    """Power, kernel, daemon, consumer."""

    def __init__(self, world: Cluster, nodeid: int) -> None:
        self.world, self.nodeid = world, nodeid
        self.on = self.paused = False
        self.boots = 0
        self.booted_ns = self.daemon_born = self.starts_ns = 0
        self.record: bytes | None = None
        self.wanted = True
        "The administrator wants this node in the cluster."
        self.mounting = True
        "The administrator wants the groups here, too."
        self.groups: set[str] | None = None
        "Only these of the world's groups; None: all."
        self.daemon: Daemon | None = None
        self.frozen: list[Callable[[], None]] = []

    @property
    def boot(self) -> int:
        return self.nodeid * 1000 + self.boots

    @property
    def incarnation(self) -> tuple[int, int]:
        return (self.nodeid, self.boot)

    def later(self, between: tuple[int, int], call: Callable[[], None]) -> None:
        """On this boot of this machine only, and not while it is paused."""
        boots = self.boots

        def run() -> None:
            if not self.on or self.boots != boots:
                return
            if self.paused:
                self.frozen.append(run)
            else:
                call()

        self.world.after(self.world.rng.randint(*between), run)

    # --- power ------------------------------------------------------------------------------------------------------------
    def power_on(self) -> None:
        if self.on:
            return
        self.on, self.paused = True, False
        self.boots += 1
        self.booted_ns = self.world.now
        self.starts_ns = 0
        self.frozen.clear()
        self._lease_timer = 0
        reset = None if self.nodeid in self.world.dry else self._reset
        self.switch = FakeSwitch(self.boot, lambda: self.world.now, self._observe, reset)
        self.switch.provider().cluster_add(HANDLE, "sim", self.nodeid)
        self.glue = Glue(self)
        self.world.trace(f"{self.nodeid} power_on {self.boot}")
        self.later((100_000_000, 500_000_000), self.daemon_start)
        self.later((300_000_000, 900_000_000), self._administrate)
        self.later(WORK_NS, self.glue.work)

    def power_off(self, back_ns: tuple[int, int] | None = BOOT_NS) -> None:
        """Cut the power; it comes back after ``back_ns`` unless that is None."""
        if self.on:
            self.world.trace(f"{self.nodeid} power_off")
            if self.daemon is not None:
                self.daemon.dead = True
                self.daemon = None
                self.world.engine.stop(self.nodeid)
            self.on = False
            self.world.machine_off(self)
        if back_ns is not None:
            self.world.after(self.world.rng.randint(*back_ns), self.power_on)

    def pause(self, paused: bool) -> None:
        if not self.on or paused == self.paused:
            return
        self.paused = paused
        self.world.engine.pause(self.nodeid, paused)
        if not paused:
            self.switch.tick()  # an overdue timer of the kernel's comes before any process (what a real machine does: SAFETY S11)
            if not self.on:
                return
            calls, self.frozen = self.frozen, []
            for call in calls:
                self.world.after(0, call)

    # --- the daemon -------------------------------------------------------------------------------------------------------
    def daemon_start(self) -> None:
        if self.daemon is not None or not self.wanted or self.world.now < self.starts_ns:
            return
        self.world.engines += 1
        self.daemon_born = self.world.now
        self.world.trace(f"{self.nodeid} daemon_start {self.world.engines}")
        try:
            self.daemon = Daemon(self, self.world.engines)
        except SwitchError as error:  # the lease has run out: nobody takes the seat before the reset
            self.world.trace(f"{self.nodeid} no seat: {error.message}")
            self.later(RESTART_NS, self.daemon_start)

    def daemon_died(self) -> None:
        """kill -9, or its own end after a lost seat; the service manager restarts it."""
        if self.daemon is None:
            return
        self.world.trace(f"{self.nodeid} daemon_died")
        self.daemon.kill(self.world.rng.random() < GASPS)
        self.daemon = None
        self._start_again()

    def daemon_restarts(self) -> None:
        """A restart that was announced: it says goodbye to the ring, and leaves everything in the switch."""
        daemon = self.daemon
        assert daemon is not None
        self.world.trace(f"{self.nodeid} daemon_restarts")
        daemon.dead = True
        self.world.engine.leave(self.nodeid)
        daemon.port.close()
        self.daemon = None
        self._start_again()

    def _start_again(self) -> None:
        """The service manager does it, and nobody before it."""
        self.starts_ns = self.world.now + self.world.rng.randint(*(RESTART_LATE_NS if self.world.rng.random() < LATE else RESTART_NS))
        self.later((self.starts_ns - self.world.now,) * 2, self.daemon_start)

    def left_cluster(self) -> None:
        daemon = self.daemon
        assert daemon is not None
        self.world.trace(f"{self.nodeid} left_cluster")
        if daemon.coordinator.state.shutdown:
            self.wanted = False  # vcsd has ended, and nobody starts it again before a person does
        daemon.dead = True
        self.world.engine.leave(self.nodeid)
        try:
            give_back(daemon.port, HANDLE, daemon.session)
        except SwitchError:
            raise Violation("leave", f"node {self.nodeid} left the cluster while its switch held groups") from None
        daemon.port.close()
        self.daemon = None

    def _administrate(self) -> None:
        """Mount what is wanted; or unmount and leave."""
        if self.wanted:
            self.daemon_start()
            for name, level, flags in self.world.groups if self.mounting else ():
                if self.groups is None or name in self.groups:
                    self.glue.mount(name, level, flags)
            if not self.mounting:
                for name in list(self.glue.mounts):
                    self.glue.unmount(name)
        elif self.daemon is not None:
            for name in list(self.glue.mounts):
                self.glue.unmount(name)
            if not self.glue.mounts:
                self.daemon.feed(co.LeaveCluster())
        self.later((300_000_000, 700_000_000), self._administrate)

    def come_back(self) -> None:
        self.wanted = self.mounting = True

    def lost_groups(self) -> Sequence[FakeGroup]:
        """Straight from the model's inside: it also knows whether a start was ever ordered."""
        return [g for g in self.switch._clusters[HANDLE].groups.values() if g.state is GroupState.LOST]

    def _observe(self, what: str, _handle: str, group: str, number: int) -> None:
        self.world.observed(self, what, group, number)
        if what in ("group_start", "lease_renew", "provider_attach", "lease_hint"):
            self.later((0, 0), self._lease_timers)

    # --- the lease's timers, of the kernel's ------------------------------------------------------------------------------
    def _lease_timers(self) -> None:
        """Come again when the next one is due; one that was prolonged meanwhile is found so then."""
        due = self.switch.next_deadline()
        if due is None or (self._lease_timer and self._lease_timer <= due):
            return
        self._lease_timer = due
        wait = max(0, due - self.world.now)

        def fire() -> None:
            self._lease_timer = 0
            self.switch.tick()
            if self.on:
                self._lease_timers()

        self.later((wait, wait), fire)

    @property
    def doomed(self) -> bool:
        """Paused beyond the deadline of its lease: it is reset before it does anything again (SAFETY S11)."""
        return self.paused and self.nodeid not in self.world.dry and self.switch._clusters[HANDLE].due(self.world.now)

    def _reset(self) -> None:
        """emergency_restart()."""
        if self.on:
            self.world.reset(self)
            self.power_off()

