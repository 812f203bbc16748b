# SPDX-License-Identifier: GPL-2.0-only
"""Everybody at once, and killed at any moment: providers, consumers, readers and an administrator as processes, on few names,
so that they meet. What is looked for is what no single-threaded case can show: a crash, a reference that is never given
back (the module could not be unloaded), a group that nobody can end. Runs inside a virtual machine, like guest_module.py.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel.guest_contract import SYSFS, KernelBackend
from tests.kernel.guest_module import load, unload
from vcs.errors import SwitchError
from vcs.model import Group, GroupFlags, GroupState, Level, Member, Phase, RingId
from vcs.netlink import KernelSwitch

SECONDS = 25.0
SEED = 7
HANDLES = ("s0", "s1")
NAMES = ("a", "b", "c", "d")


class Worker:
    """One process's work. ``say`` counts what was reached."""

    def __init__(self, seed: int, log: int) -> None:
        self.rng = random.Random(seed)
        self.log = log
        self.port = KernelSwitch()
        self.me = Member(1, self.port.info().incarnation)

    def say(self, word: str) -> None:
        os.write(self.log, f"{word}\n".encode())

    def pause(self, most_s: float = 0.01) -> None:
        time.sleep(self.rng.random() * most_s)

    def again(self) -> None:
        """Another socket, now and then; the old one's seats and groups lose their holder."""
        if self.rng.random() < 0.1:
            self.port.close()
            self.port = KernelSwitch()

    def provide(self) -> None:
        handle, port, rng = self.rng.choice(HANDLES), self.port, self.rng
        lease_ms = rng.choice((0, 400))
        held = port.attach(handle, lease_ms)
        self.say("attached")
        event = held.highest_event
        for turn in range(40):
            if turn % 10 == 0:
                others = [Member(n, 7) for n in rng.sample(range(2, 900), rng.choice((1, 20, 700)))]
                port.view_set(handle, held.session, RingId(turn + 1, 1), True, [self.me, *others])
            if lease_ms and turn < 20:
                port.lease_renew(handle, held.session, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            for group in port.groups(handle):
                event += 1
                with suppress(SwitchError):
                    self.drive(handle, held.session, group, event)
            self.pause()
        port.detach(handle, held.session)
        self.say("detached")

    def drive(self, handle: str, session: int, g: Group, event: int) -> None:
        answered = g.acked_event == g.event and g.acked_phase is g.phase
        if g.state is GroupState.LEAVING:
            self.port.group_left(handle, session, g.name)
            self.say("left")
        elif g.phase in (Phase.NONE, Phase.FINISH) or self.rng.random() < 0.1:
            self.port.group_stop(handle, session, g.name, event)
        elif answered and g.phase is Phase.STOP:
            self.port.group_start(handle, session, g.name, g.event, [self.me])
        elif answered:
            self.port.group_finish(handle, session, g.name, g.event)
            self.say("finished")

    def consume(self) -> None:
        handle, name, rng = self.rng.choice(HANDLES), self.rng.choice(NAMES), self.rng
        joined = self.port.join(handle, name, Level.USER, GroupFlags(rng.randrange(4)), "stress")
        self.say("taken over" if joined.taken_over else "joined")
        for _ in range(rng.randrange(40)):
            g = self.port.group(handle, name)
            if g.phase in (Phase.STOP, Phase.START) and (g.acked_event, g.acked_phase) != (g.event, g.phase):
                with suppress(SwitchError):
                    self.port.ack(handle, joined.session, name, g.event, g.phase)
            self.pause()
        if rng.random() < 0.8:
            self.port.leave(handle, joined.session, name)
            self.say("leaving")

    def read(self) -> None:
        for c in self.port.clusters():
            with suppress(SwitchError):
                self.port.view(c.handle)
                self.port.groups(c.handle)
        for folder, _, files in os.walk(SYSFS):
            for name in files:
                with suppress(OSError):
                    Path(folder, name).read_text()
        self.port.hints()
        self.say("read")

    def administrate(self) -> None:
        handle = self.rng.choice((*HANDLES, "s2"))
        try:
            self.port.cluster_add(handle, "stress", 1)
        except SwitchError:
            self.port.cluster_del(handle)
            self.say("deleted")
            self.port.cluster_add(handle, "stress", 1)
        self.port.claim(self.rng.choice(NAMES), bytes(self.rng.randrange(4000)))
        self.pause(0.1)


Role = Callable[[Worker], None]
ROLES: tuple[Role, ...] = (
    Worker.provide, Worker.provide, Worker.consume, Worker.consume, Worker.consume, Worker.read, Worker.administrate,
)


def start(role: Role, seed: int, log: int) -> int:
    """A process that works for ever; its pid. Forked, since importing takes seconds under emulation."""
    pid = os.fork()
    if pid:
        return pid
    try:
        worker = Worker(seed, log)
        while True:
            try:
                role(worker)
            except SwitchError:
                worker.pause()
            worker.again()
    except BaseException:
        os.write(log, traceback.format_exc().encode())
    finally:
        os._exit(1)


def kill(pid: int) -> bool:
    """False when it had ended by itself, which is a failure: the log says of what."""
    alive = os.waitpid(pid, os.WNOHANG) == (0, 0)
    if alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return alive


@pytest.fixture
def backend() -> Iterator[KernelBackend]:
    backend = KernelBackend()
    yield backend
    backend.clean()


@pytest.mark.timeout(180)
def test_everybody_at_once_and_killed(backend: KernelBackend, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    log = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    with_clusters = KernelSwitch()
    for handle in HANDLES:
        with_clusters.cluster_add(handle, "stress", 1)
    with_clusters.close()
    workers = [start(role, seed, log) for seed, role in enumerate(ROLES)]
    end = time.monotonic() + SECONDS
    lived = True
    try:
        while lived and time.monotonic() < end:
            # The life of the victims is what is varied here, there is no event to wait for.
            time.sleep(0.2 + 0.5 * rng.random())
            i = rng.randrange(len(ROLES))
            lived = kill(workers[i])
            workers[i] = start(ROLES[i], rng.randrange(1 << 30), log)
    finally:
        for pid in workers:
            lived = kill(pid) and lived
    assert lived, (tmp_path / "log").read_text()[-4000:]
    counted = Counter((tmp_path / "log").read_text().splitlines())
    print(f"stress: {dict(counted)}")
    wanted = {"attached", "joined", "taken over", "finished", "left", "read", "leaving"}
    assert wanted <= set(counted), counted
    backend.clean()
    assert unload() == "", "something still holds the module"
    load()
