# SPDX-License-Identifier: GPL-2.0-only
"""One node's dlm_glue between the userland switch and the model of the DLM, step by step: the real component, the real plan, the real
executor; only its threads and timers are under the test's control."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from dlm_glue.apply import Applier, Setup
from dlm_glue.component import Glue
from dlm_glue.journal import Journal
from dlm_glue.lanes import Lanes
from dlm_glue.state import group_name
from dlm_glue.uevents import Event, LockspaceEvent, UeventReader
from tests.fakes.dlm import PATHS, FakeDlm
from tests.fakes.switch import FakeSwitch
from vcs.errors import SwitchError
from vcs.events import EventLog, Record
from vcs.model import Group, Member, Phase, RingId

HANDLE = "c"
ME = 1


class ManualLanes(Lanes):
    """Steps wait until the test runs them, those of one lane in order."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, Callable[[], None], Callable[[BaseException | None], None]]] = []

    def submit(self, lane: str, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        self.jobs.append((lane, work, done))

    def ready(self) -> list[str]:
        return sorted({lane for lane, _, _ in self.jobs})

    def run(self, lane: str, tell: bool = True) -> None:
        """The oldest step of a lane; without ``tell`` the process dies after the step."""
        job = next(j for j in self.jobs if j[0] == lane)
        self.jobs.remove(job)
        error: BaseException | None = None
        try:
            job[1]()
        except Exception as caught:
            error = caught
        if tell:
            job[2](error)

    def end(self, lane: str) -> None:
        assert all(j[0] != lane for j in self.jobs)

    def close(self) -> None:
        self.jobs.clear()


class Uevents(UeventReader):
    def __init__(self) -> None:
        self.queue: list[LockspaceEvent] = []

    def read(self, keep: Callable[[LockspaceEvent], None]) -> list[Event]:
        found: list[Event] = list(self.queue)
        self.queue.clear()
        for event in found:
            if isinstance(event, LockspaceEvent):
                keep(event)
        return found


class StubLoop:
    """Time stands still and timers are the test's. With ``busy`` what is to be called soon waits for ``turn``."""

    def __init__(self) -> None:
        self.busy = False
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return 1.0

    def call_later(self, *_: object) -> Any:
        class Handle:
            def cancel(self) -> None: ...

        return Handle()

    def call_soon(self, call: Callable[[], None]) -> None:
        if self.busy:
            self.soon.append(call)
        else:
            call()

    def turn(self) -> None:
        calls, self.soon = self.soon, []
        for call in calls:
            call()

    def create_future(self) -> Any:
        return _LOOP.create_future()


_LOOP = asyncio.new_event_loop()


class World:
    """``incarnations`` of the nodes that are in the view; the test is the bridge."""

    def __init__(self, nodes: tuple[int, ...] = (1, 2, 3)) -> None:
        self.dlm = FakeDlm()
        self.switch = FakeSwitch(0x1000 + ME)
        self.bridge = self.switch.provider()
        self.incarnations = {n: 0x1000 + n for n in nodes}
        self.bridge.cluster_add(HANDLE, "lab", ME)
        self.session = self.bridge.attach(HANDLE, 0).session
        self.ring = 0
        self.event = 0
        self.uevents = Uevents()
        self.memfd = os.memfd_create("journal")
        self.notes: list[Record] = []
        addresses = {n: (f"10.0.0.{n}",) for n in range(1, 6)}
        self.applier = Applier(self.dlm, Setup("lab", ME, addresses), PATHS)
        self.view()
        self.boot()

    def close(self) -> None:
        os.close(self.memfd)

    # the process

    def boot(self) -> None:
        """A new dlm_glue process, with the descriptors of the one before."""
        self.lanes, self.loop = ManualLanes(), StubLoop()
        log = EventLog("/nonexistent/events", "n1", "dlm_glue")
        log._write = lambda line: None  # type: ignore[method-assign]
        log.subscribe(self.notes.append)
        self.port = self.switch.consumer()
        self.glue = Glue(
            handle=HANDLE,
            nodeid=ME,
            configured=frozenset(range(1, 6)),
            switch=self.port,
            tree=self.dlm,
            applier=self.applier,
            uevents=self.uevents,
            journal=Journal(os.dup(self.memfd)),
            log=log,
        )
        self.glue.attach(self.loop, self.lanes)  # type: ignore[arg-type]
        before = self.glue.claim()
        self.applier.prepare()
        self.glue.inherit(before)
        self.glue.on_uevents()
        self.glue.on_hints()

    def kill(self, after: str | None = None) -> None:
        """SIGKILL, at once or right after the next step of a lane was carried out."""
        if after is not None:
            self.lanes.run(after, tell=False)
        self.port.close()

    def hint(self) -> None:
        self.glue.on_hints()
        self.glue.on_uevents()

    def poll(self) -> None:
        self.glue._timers.pop("poll", None)
        self.glue.on_poll()

    def step(self, lane: str) -> None:
        """Carry out the oldest step of a lane."""
        self.lanes.run(lane)
        assert not self.glue.failed.done(), self.glue.failed.exception()

    def settle(self) -> None:
        """Until nothing is left to do without somebody else."""
        for _ in range(200):
            self.hint()
            ready = self.lanes.ready()
            if not ready:
                return
            self.step(ready[0])
        raise AssertionError(f"does not come to rest: {self.lanes.ready()}")

    # the kernel

    def open(self, name: str) -> None:
        self.dlm.new_lockspace(name)
        self.uevents.queue.append(LockspaceEvent("online", name))

    def release(self, name: str) -> None:
        self.dlm.release_lockspace(name)
        self.uevents.queue.append(LockspaceEvent("offline", name))

    def recovered(self, name: str, status: int = 0xFF) -> None:
        self.dlm.recover(name, status)
        self.poll()

    # the bridge

    def lose(self) -> None:
        """The switch counts the provider as lost (its lease ran out), and what follows."""
        self.switch._lose(self.switch._clusters[HANDLE])
        self.settle()

    def view(self, *, quorate: bool = True) -> None:
        self.ring += 1
        members = [Member(n, i) for n, i in sorted(self.incarnations.items())]
        self.bridge.view_set(HANDLE, self.session, RingId(self.ring, ME), quorate, members)

    def dies(self, nodeid: int) -> None:
        del self.incarnations[nodeid]
        self.view()

    def boots(self, nodeid: int) -> None:
        """A new incarnation of the node is in the view."""
        self.incarnations[nodeid] = (self.ring << 16) + 0x1000 + nodeid
        self.view()

    def stop(self, name: str) -> int:
        self.event += 1
        self.bridge.group_stop(HANDLE, self.session, group_name(name), self.event)
        return self.event

    def start(self, name: str, members: dict[int, int]) -> None:
        """Start the current event with members nodeid -> join id, in their incarnations of now."""
        who = [Member(n, self.incarnations[n], 1, j) for n, j in members.items()]
        self.bridge.group_start(HANDLE, self.session, group_name(name), self.group(name).event, who)

    def finish(self, name: str) -> None:
        self.bridge.group_finish(HANDLE, self.session, group_name(name), self.group(name).event)

    def left(self, name: str, error: int = 0) -> None:
        self.bridge.group_left(HANDLE, self.session, group_name(name), error)

    def group(self, name: str) -> Group:
        return self.bridge.group(HANDLE, group_name(name))

    def has_group(self, name: str) -> bool:
        try:
            self.group(name)
        except SwitchError:
            return False
        return True

    def acked(self, name: str, phase: Phase) -> bool:
        group = self.group(name)
        return group.acked_event == group.event and group.acked_phase >= phase

    # shorthands

    def change(self, name: str, members: dict[int, int], status: int = 0xFF) -> None:
        """A whole event: stop, start, recovered, finish."""
        self.stop(name)
        self.settle()
        assert self.acked(name, Phase.STOP), f"STOP of {name} not acknowledged"
        self.start(name, members)
        self.settle()
        assert not self.acked(name, Phase.START), "acknowledged before recovery"
        self.recovered(name, status)
        self.settle()
        assert self.acked(name, Phase.START), f"START of {name} not acknowledged"
        self.finish(name)
        self.settle()

    def mounted(self, name: str, members: dict[int, int]) -> None:
        """This node joins, the others were or come with it."""
        self.open(name)
        self.settle()
        self.change(name, members)
        assert self.dlm.lockspaces[name].waiting == ""

    def did(self, *kinds: str) -> list[tuple[object, ...]]:
        """What the kernel did, of these kinds."""
        return [entry for entry in self.dlm.log if entry[0] in kinds]

    def noted(self) -> list[str]:
        return [str(r["event"]) for r in self.notes]
