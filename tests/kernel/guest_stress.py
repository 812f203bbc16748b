# SPDX-License-Identifier: GPL-2.0-only
"""Everybody at once, and killed at any moment: providers (one of them the heartbeat), consumers (one of them in the kernel), readers and
an administrator as processes, on few names, so that they meet; now and then all of them die, and the module is unloaded among their
successors. What is looked for is what no single-threaded case can show: a crash, a reference that is never given back (the module
could not be unloaded), a group that nobody can end. Runs inside a virtual machine, like guest_module.py; STRESS seconds.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel.guest_contract import SYSFS, KernelBackend
from tests.kernel.guest_module import load, loaded, unload
from tests.kernel.heartbeat_world import KEY
from vcs.errors import SwitchError
from vcs.heartbeat import Heartbeat, Node
from vcs.model import Group, GroupFlags, GroupState, Level, Member, Phase, RingId
from vcs.netlink import KernelSwitch

SECONDS = float(os.environ.get("STRESS", "25"))
SEED = int(os.environ.get("SEED", "7"))
TURN_S = 12.0
"After so long everybody dies, and the module goes while others begin."
UNLOAD_LIMIT_S = 60.0
CONSUMER, BEATS = "vcs_test_consumer", "vcs_heartbeat"
HANDLES = ("s0", "s1")
BEATEN = "s3"
"A cluster of the heartbeat's own, beside the others, where it mostly finds somebody else."
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
        """Another socket, now and then; the old one's seats and groups lose their holder. Raises SwitchError without the module."""
        if self.rng.random() < 0.1:
            self.port.close()
            self.port = KernelSwitch()
            self.me = Member(1, self.port.info().incarnation)

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

    def beat(self) -> None:
        """The heartbeat, alone with peers that do not exist."""
        handle, rng = self.rng.choice((*HANDLES, BEATEN)), self.rng
        nodes = tuple(Node(n, "127.0.0.1", 7100 + 10 * int(handle[1]) + n) for n in range(1, rng.randrange(2, 6)))
        self.port.attach_kernel(handle, "heartbeat", Heartbeat(KEY, nodes, interval_ms=20).attributes())
        self.say("beating")
        self.pause(0.3)
        self.port.detach_kernel(handle)

    def consume_in_kernel(self) -> None:
        """Its exit leaves the group, and waits for that."""
        if loaded(CONSUMER):
            subprocess.run(["rmmod", CONSUMER], capture_output=True, check=False)
        else:
            rng = self.rng
            options = [f"cluster={rng.choice(HANDLES)}", f"group={rng.choice((*NAMES, '', 'k', 'k'))}", f"flags={2 * rng.randrange(2)}"]
            if subprocess.run(["modprobe", CONSUMER, *options], capture_output=True, check=False).returncode == 0:
                self.say("consuming in the kernel")
        self.pause(0.5)

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
    Worker.provide, Worker.provide, Worker.consume, Worker.consume, Worker.consume, Worker.read, Worker.administrate, Worker.beat,
    Worker.consume_in_kernel,
)
CHURNERS = (Worker.administrate, Worker.consume, Worker.provide, Worker.read)
"Who begins while the module is being unloaded."


def work(role: Role, seed: int, log: int) -> None:
    """For ever, also while there is no module."""
    worker = None
    while True:
        try:
            worker = worker or Worker(seed, log)
            role(worker)
        except SwitchError:
            time.sleep(0.01)
        try:
            if worker:
                worker.again()
        except SwitchError:
            worker = None


def start(role: Role, seed: int, log: int) -> int:
    """A process that works for ever; its pid. Forked, since importing takes seconds under emulation."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work(role, seed, log)
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


def kill_all(pids: list[int]) -> bool:
    lived = [kill(pid) for pid in pids]
    return all(lived)


@pytest.fixture
def backend() -> Iterator[KernelBackend]:
    backend = KernelBackend()
    yield backend
    backend.clean()


def populate() -> None:
    port = KernelSwitch()
    for handle in (*HANDLES, BEATEN):
        with suppress(SwitchError):
            port.cluster_add(handle, "stress", 1)
    port.close()


def everybody(rng: random.Random, log: int, seconds: float) -> bool:
    """One turn; False when a worker ended by itself."""
    workers = [start(role, rng.randrange(1 << 30), log) for role in ROLES]
    end = time.monotonic() + seconds
    lived = True
    try:
        while lived and time.monotonic() < end:
            # The life of the victims is what is varied here, there is no event to wait for.
            time.sleep(0.2 + 0.5 * rng.random())
            i = rng.randrange(len(ROLES))
            lived = kill(workers[i])
            workers[i] = start(ROLES[i], rng.randrange(1 << 30), log)
    finally:
        lived = kill_all(workers) and lived
    return lived


def sweep() -> None:
    """Take away what nobody holds any more, whoever else does what meanwhile."""
    if loaded(CONSUMER):
        subprocess.run(["rmmod", CONSUMER], capture_output=True, check=False, timeout=60)
    with suppress(SwitchError):
        port = KernelSwitch()
        for c in port.clusters():
            with suppress(SwitchError):
                port.detach_kernel(c.handle)
            with suppress(SwitchError):
                for g in port.groups(c.handle):
                    if g.orphan_since_ms:
                        joined = port.join(c.handle, g.name, g.level, g.flags, g.owner)
                        port.leave(c.handle, joined.session, g.name)
            with suppress(SwitchError):
                port.cluster_del(c.handle)
        port.close()


def unload_among(rng: random.Random, log: int) -> bool:
    """The module goes, though others make clusters in it; they may be in the way of each attempt, so they die in the end."""
    workers = [start(role, rng.randrange(1 << 30), log) for role in CHURNERS]
    end = time.monotonic() + UNLOAD_LIMIT_S
    lived, attempts = True, 0
    while True:
        if attempts == 40:
            lived = kill_all(workers)
        attempts += 1
        sweep()
        if loaded(BEATS):
            unload(BEATS)
        if not loaded(BEATS) and unload() == "":
            break
        assert time.monotonic() < end, f"something still holds the module: {Path('/proc/modules').read_text()}"
    if attempts <= 40:
        os.write(log, b"unloaded among others\n")
        lived = kill_all(workers)
    load()
    load(BEATS)
    return lived


@pytest.mark.timeout(int(SECONDS) * 3 + 180)
def test_everybody_at_once_and_killed(backend: KernelBackend, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    log = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    if not loaded(BEATS):
        load(BEATS)
    end = time.monotonic() + SECONDS
    lived = True
    while lived and time.monotonic() < end:
        populate()
        lived = everybody(rng, log, min(TURN_S, max(1.0, end - time.monotonic()))) and unload_among(rng, log)
    assert lived, (tmp_path / "log").read_text()[-4000:]
    counted = Counter((tmp_path / "log").read_text().splitlines())
    print(f"stress: {dict(counted)}")
    wanted = {"attached", "joined", "taken over", "finished", "left", "read", "leaving", "beating"}
    if SECONDS > 60:  # twice in half a minute: loading takes its time, and mostly finds the group held
        wanted.add("consuming in the kernel")
    assert wanted <= set(counted), counted
    assert unload(BEATS) == "" and unload() == "", "something still holds the modules"
    load()
