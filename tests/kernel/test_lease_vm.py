# SPDX-License-Identifier: GPL-2.0-only
"""Real resets (SAFETY S11, S14): a machine whose lease has run out is reset by its kernel, at the deadline and never before it; and by
the hardware watchdog where the kernel would take longer."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import pytest
from harness import Machine
from harness.pytest_plugin import Factory

pytestmark = pytest.mark.vm

LEASE_MS, GRACE_MS = 2000, 2000
LATE_MS = 1500
"""What a reset may come late on a host that stops the machine for the sake of others, and still less than a lease or a grace counted
twice. The figures are recorded; on an idle host they are a few ms."""
MODES = ("silent", "killed", "stale", "frozen", "starved")
"How the lease comes to be renewed no more (lease_guest.py)."
ROUNDS = int(os.environ.get("ROUNDS", "1"))
"Of all modes; four rounds are twenty resets."


DEADLINE = r'\{"deadline": (\d+)\}'


class Reset(NamedTuple):
    deadline: int
    last: int
    "The last time that the guest told, or the deadline if it did not. Both by its own CLOCK_BOOTTIME, ns."


def told(machine: Machine, log: str, boot: int) -> Reset:
    """From its output, and where that says no deadline from the console."""
    folder = machine.folder / f"boot{boot}"
    output = folder / f"{log}.log"
    lines = output.read_text().splitlines() if output.exists() else []
    times = [int(line) for line in lines if line.isdigit()]
    deadline = int(re.findall(DEADLINE, lines[0] if lines else (folder / "console.log").read_text())[-1])
    return Reset(deadline, times[-1] if times else deadline)


def prepare(machine: Machine) -> None:
    if not machine.on:
        machine.boot()
    machine.run("modprobe vcs", timeout=30, check=True)


@pytest.mark.kernels("6.1", "6.12")
def test_a_lease_that_is_not_renewed_resets_the_machine(
    cluster: Factory, kernel: str, record_property: Callable[[str, object], None]
) -> None:
    node = cluster(nodes=1, kernel=kernel)[1]
    late: list[float] = []
    for turn, mode in enumerate(MODES * ROUNDS):
        prepare(node)
        assert node.offset is not None
        clock = node.measure_clock()
        node.spawn(f"exec python3 -S -m tests.kernel.lease_guest {LEASE_MS} {GRACE_MS} {mode}", log=f"{mode}-{turn}")
        gone_ns = node.wait_off(60)
        assert node.stop_reason == "guest-reset", mode
        reset = told(node, f"{mode}-{turn}", node.boots)
        late_ms = (gone_ns - clock.boottime_ns - reset.deadline) / 1e6
        record_property(f"{kernel} {mode} late_ms", round(late_ms, 1))
        print(f"{kernel} {mode}: reset {late_ms:.1f} ms after the deadline, last told {(reset.last - reset.deadline) / 1e6:.1f} ms")
        late.append(late_ms)
        assert -clock.error_ns / 1e6 < late_ms < LATE_MS, mode
    print(f"{kernel}: {len(late)} resets, {min(late):.1f} to {max(late):.1f} ms after the deadline, median {median(late):.1f}")
    prepare(node)
    left = node.run(f"python3 -S -m tests.kernel.lease_guest {LEASE_MS} {GRACE_MS} left", timeout=60, check=True)
    assert json.loads(left.lines[-1]) == {"alive": True}


def test_the_watchdog_resets_what_the_kernel_does_not(cluster: Factory) -> None:
    """The grace is a minute: the keeper stops its pings when the lease has ended, and the device counts from there. Before, it lets a
    machine live on whose keeper was started again, and lets go of the device when nothing is armed."""
    node = cluster(nodes=1)[1]
    prepare(node)
    node.run("modprobe i6300esb", check=True)
    keeper = "python3 -I -S /opt/vcs/src/vcs/watchdog.py /dev/watchdog 2"
    first = node.spawn(f"exec {keeper}", log="keeper")
    node.run("sleep 5")
    node.run(f"kill {first.pid}", check=True)
    node.run("sleep 4")
    assert first.rc == 0, "with the magic close, and so without a reset"

    second = node.spawn(f"exec {keeper}", log="keeper-killed")
    node.spawn("exec python3 -S -m tests.kernel.lease_guest 6000 60000 silent", log="lease")
    node.run(f"sleep 1; kill -9 {second.pid}", check=True)
    node.spawn(f"exec {keeper}", log="keeper-again")
    node.wait_off(60)
    assert node.stop_reason == "watchdog"
    reset = told(node, "lease", node.boots)
    after_end_s = (reset.last - (reset.deadline - 60_000_000_000)) / 1e9
    print(f"the watchdog reset the machine {after_end_s:.2f} s after the end of the lease")
    assert 0 < after_end_s < 2 + 1
