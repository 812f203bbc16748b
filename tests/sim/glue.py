# SPDX-License-Identifier: GPL-2.0-only
"""A model consumer: a lockspace per group, driven by the switch's group events alone, and a workload above it.

A stop blocks new locks only; writing under the locks held goes on (SAFETY S4). The model outlives the daemon, as dlm_glue must.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.sim.disk import LOCKS
from vcs.errors import SwitchError
from vcs.model import Group, GroupFlags, GroupState, Level, Phase

if TYPE_CHECKING:
    from tests.fakes.switch_port import FakePort
    from tests.sim.node import Machine

HANDLE = "c"
STOP_NS = (100_000, 8_000_000)
START_NS = (500_000, 20_000_000)
WORK_NS = (60_000_000, 260_000_000)


@dataclass(slots=True)
class Mount:
    """One group on one machine, from join to left."""

    name: str
    session: int
    flags: GroupFlags
    running: bool = False
    "Recovered for ``event``: new locks may be taken."
    event: int = 0
    ever: bool = False
    "A start was applied here once: locks may be held from then on."
    members: frozenset[tuple[int, int]] = frozenset()
    held: set[int] = field(default_factory=set)
    wanted: bool = True
    doing: tuple[int, int] = (0, 0)


class Glue:
    """All mounts of one machine. Its socket is the consumers'."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.port: FakePort = machine.switch.consumer()
        self.port.on_hints = self._hinted
        self.mounts: dict[str, Mount] = {}
        self.stuck = False
        self.stuck_groups: set[str] = set()
        "Whose consumers do not answer, the others' do."
        self._noted = False
        self.port.hints()

    # --- what the administrator does --------------------------------------------------------------------------------------
    def mount(self, name: str, level: Level, flags: GroupFlags) -> None:
        if name in self.mounts:
            return
        try:
            joined = self.port.join(HANDLE, name, level, flags, f"glue{name}")
        except SwitchError:
            return  # no cluster here yet, or the old group still goes: the next round tries again
        self.mounts[name] = Mount(name, joined.session, flags)
        self._hinted()

    def unmount(self, name: str) -> None:
        """The file system is unmounted: its locks are dropped, then the group is left."""
        mount = self.mounts.get(name)
        if mount is None or not mount.wanted:
            return
        mount.wanted = False
        self._release_all(mount)
        with contextlib.suppress(SwitchError):  # it is gone already
            self.port.leave(HANDLE, mount.session, name)
        self._hinted()

    # --- the switch's word ------------------------------------------------------------------------------------------------
    def _hinted(self) -> None:
        if not self._noted:
            self._noted = True
            self.machine.later((50_000, 500_000), self._look)

    def _look(self) -> None:
        self._noted = False
        self.port.hints()
        try:
            held = {g.name: g for g in self.port.groups(HANDLE)}
        except SwitchError:
            return
        for name in list(self.mounts):
            group = held.get(name)
            if group is None:
                self._gone(self.mounts.pop(name))
            else:
                self._event(self.mounts[name], group)

    def _gone(self, mount: Mount) -> None:
        self._release_all(mount)
        mount.running = False
        self.machine.world.left(self.machine, mount.name)

    def _release_all(self, mount: Mount) -> None:
        for lock in sorted(mount.held):
            self.machine.world.disk.release(self.machine.incarnation, mount.name, lock)
        mount.held.clear()

    def _event(self, mount: Mount, group: Group) -> None:
        if group.state is GroupState.LOST:
            mount.running = False  # what is held stays held: nobody has told the file system to stop writing
            if mount.wanted and not (mount.ever and mount.flags & GroupFlags.NEEDS_FENCE):
                self.unmount(mount.name)  # it holds nothing that matters: leave at once, and come back afresh
            return
        todo = (group.event, int(group.phase))
        if todo == mount.doing or self.stuck or mount.name in self.stuck_groups or group.phase is Phase.NONE:
            return
        mount.doing = todo
        if group.phase is Phase.STOP and not (group.acked_event == group.event and group.acked_phase >= Phase.STOP):
            mount.running = False
            self.machine.later(STOP_NS, lambda: self._ack(mount, group, Phase.STOP))
        elif group.phase is Phase.START:
            self.machine.later(START_NS, lambda: self._recovered(mount, group))

    def _ack(self, mount: Mount, group: Group, phase: Phase) -> None:
        try:
            self.port.ack(HANDLE, mount.session, mount.name, group.event, phase)
        except SwitchError:
            self._hinted()  # overtaken: read again
            return
        if phase is Phase.STOP and not mount.wanted:
            self.machine.world.left(self.machine, mount.name)  # unmounted and stopped: it holds nothing any more

    def _recovered(self, mount: Mount, group: Group) -> None:
        if self.mounts.get(mount.name) is not mount or mount.doing != (group.event, int(group.phase)):
            return
        mount.members = frozenset((m.nodeid, m.incarnation) for m in group.members)
        mount.event, mount.running, mount.ever = group.event, True, True
        self.machine.world.recovered(self.machine, mount.name, group.event, mount.members)
        self._ack(mount, group, Phase.START)

    # --- the workload -----------------------------------------------------------------------------------------------------
    def work(self) -> None:
        """One step of every mounted file system: write under what is held; take or give a lock if that may be."""
        world, rng = self.machine.world, self.machine.world.rng
        for mount in self.mounts.values():
            for lock in sorted(mount.held):
                world.wrote(self.machine, mount.name, lock)
            if not mount.running or not mount.wanted:
                continue
            lock = rng.randrange(LOCKS)
            if lock in mount.held:
                if rng.random() < 0.5:
                    world.disk.release(self.machine.incarnation, mount.name, lock)
                    mount.held.discard(lock)
            elif world.disk.acquire(self.machine.incarnation, mount.name, lock, mount.members):
                mount.held.add(lock)
                world.locked(self.machine, mount.name, lock)
        self.machine.later(WORK_NS, self.work)
