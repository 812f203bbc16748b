# SPDX-License-Identifier: GPL-2.0-only
"""Everybody at once, and killed at any moment: providers, consumers, readers and an administrator as processes, on few names,
so that they meet. What is looked for is what no single-threaded case can show: a crash, a reference that is never given
back (the module could not be unloaded), a group that nobody can end. Runs inside a virtual machine, like guest_module.py.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.kernel.guest_contract import KernelBackend
from tests.kernel.guest_module import load, unload
from vcs.netlink import KernelSwitch

SECONDS = 25.0
SEED = 7
HANDLES = ("s0", "s1")
ROLES = ("provider", "provider", "consumer", "consumer", "consumer", "reader", "administrator")

WORKER = """
import pathlib, random, sys, time
from vcs.errors import SwitchError
from vcs.model import GroupFlags, GroupState, Level, Member, Phase, RingId
from vcs.netlink import KernelSwitch

role, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
port = KernelSwitch()
me = Member(1, port.info().incarnation)
HANDLES, NAMES = ("s0", "s1"), ("a", "b", "c", "d")

def say(word):
    print(word, flush=True)

def provider():
    handle = rng.choice(HANDLES)
    held = port.attach(handle, rng.choice((0, 0, 400)))
    say("attached")
    ring, event = rng.randrange(1, 1 << 30), held.highest_event
    for turn in range(60):
        ring += 1
        if turn % 10 == 0:
            others = [Member(n, 7) for n in rng.sample(range(2, 900), rng.choice((1, 20, 700)))]
            port.view_set(handle, held.session, RingId(ring, 1), True, [me, *others])
        for g in port.groups(handle):
            try:
                if g.state is GroupState.LEAVING:
                    port.group_left(handle, held.session, g.name)
                elif g.phase in (Phase.NONE, Phase.FINISH) or rng.random() < 0.1:
                    event += 1
                    port.group_stop(handle, held.session, g.name, event)
                elif g.acked_event == g.event and g.acked_phase is g.phase is Phase.STOP:
                    port.group_start(handle, held.session, g.name, g.event, [me])
                elif g.acked_event == g.event and g.acked_phase is g.phase is Phase.START:
                    port.group_finish(handle, held.session, g.name, g.event)
                    say("finished")
            except SwitchError:
                pass
        time.sleep(rng.random() * 0.02)
    port.detach(handle, held.session)
    say("detached")

def consumer():
    handle, name = rng.choice(HANDLES), rng.choice(NAMES)
    joined = port.join(handle, name, Level.USER, GroupFlags(rng.randrange(4)), "stress")
    say("taken" if joined.taken_over else "joined")
    for _ in range(rng.randrange(60)):
        g = port.group(handle, name)
        if g.state is GroupState.LOST:
            say("lost")
            break
        if g.phase in (Phase.STOP, Phase.START) and (g.acked_event, g.acked_phase) != (g.event, g.phase):
            port.ack(handle, joined.session, name, g.event, g.phase)
        time.sleep(rng.random() * 0.02)
    if rng.random() < 0.7:
        port.leave(handle, joined.session, name)
        say("leaving")

def reader():
    for c in port.clusters():
        port.view(c.handle)
        port.groups(c.handle)
    for path in pathlib.Path("/sys/kernel/vcs").rglob("*"):
        try:
            if path.is_file():
                path.read_text()
        except OSError:
            pass
    port.hints()
    say("read")

def administrator():
    handle = rng.choice((*HANDLES, "s2"))
    try:
        port.cluster_add(handle, "stress", 1)
    except SwitchError:
        port.cluster_del(handle)
        say("deleted")
        port.cluster_add(handle, "stress", 1)
    port.claim(rng.choice(NAMES), bytes(rng.randrange(4000)))
    time.sleep(0.05)

while True:
    try:
        globals()[role]()
    except SwitchError:
        time.sleep(0.01)
    if rng.random() < 0.05:
        port.close()
        port = KernelSwitch()
"""


@pytest.fixture
def backend() -> Iterator[KernelBackend]:
    backend = KernelBackend()
    yield backend
    backend.clean()


def start(role: str, seed: int, log: str) -> subprocess.Popen[bytes]:
    with open(log, "ab") as out:
        return subprocess.Popen([sys.executable, "-c", WORKER, role, str(seed)], stdout=out)


@pytest.mark.timeout(180)
def test_everybody_at_once_and_killed(
    backend: KernelBackend, tmp_path: object, record_property: object
) -> None:
    log = f"{tmp_path}/log"
    rng = random.Random(SEED)
    admin = KernelSwitch()
    for handle in HANDLES:
        admin.cluster_add(handle, "stress", 1)
    workers = {i: start(role, i, log) for i, role in enumerate(ROLES)}
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            # The life of the victims is what is varied here, there is no event to wait for.
            time.sleep(0.5 + rng.random())
            i = rng.randrange(len(ROLES))
            assert workers[i].poll() is None, f"{ROLES[i]} ended with {workers[i].returncode}"
            workers[i].send_signal(signal.SIGKILL)
            workers[i].wait()
            workers[i] = start(ROLES[i], rng.randrange(1 << 30), log)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    with open(log) as lines:
        counted = Counter(line.strip() for line in lines)
    print(f"stress: {dict(counted)}")
    assert {"attached", "joined", "finished", "lost", "read", "leaving"} <= set(counted), counted
    admin.close()
    backend.clean()
    assert unload() == "", "something still holds the module"
    load()
