# SPDX-License-Identifier: GPL-2.0-only
"""Runs in a guest: arm a lease that resets this machine, stop feeding it in one of some ways, and tell the time until the end.

    lease_guest.py LEASE_MS GRACE_MS MODE

Modes: silent (the provider lives and renews no more), killed (its socket dies), stale (it goes on renewing, with old evidence), frozen (it
is stopped, and would renew when it went on), starved (it may renew, and gets no processor: something of real-time priority has it), left
(the group is left in the grace: no reset).
Prints one line of JSON {"deadline": ns} and then the time (CLOCK_BOOTTIME, ns), a line each 5 ms, flushed. Who starves everybody says the
deadline to the kernel's log instead: it is on the console when the write returns, while output waits for a process that passes it on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from vcs.errors import SwitchError
from vcs.model import GroupFlags, Level, Member, Phase, RingId
from vcs.netlink import KernelSwitch

HANDLE = "reset"
TOLD_S = 0.005
FAIR_SERVERS = Path("/sys/kernel/debug/sched/fair_server")


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def arm(provider: KernelSwitch, consumer: KernelSwitch, lease_ms: int, grace_ms: int) -> tuple[int, int, int]:
    """(provider's session, consumer's session, evidence) of a cluster whose only group has started."""
    provider.cluster_add(HANDLE, HANDLE, 1)
    session = provider.attach(HANDLE, lease_ms, grace_ms).session
    me = Member(1, provider.info().incarnation)
    provider.view_set(HANDLE, session, RingId(4, 1), True, [me])
    joined = consumer.join(HANDLE, "g", Level.USER, GroupFlags.NEEDS_FENCE, "test").session
    provider.group_stop(HANDLE, session, "g", 10)
    consumer.ack(HANDLE, joined, "g", 10, Phase.STOP)
    evidence = now()
    provider.lease_renew(HANDLE, session, evidence)
    provider.group_start(HANDLE, session, "g", 10, [me])
    return session, joined, evidence


class Renewer:
    """A process that renews the lease once for each permit."""

    def __init__(self, provider: KernelSwitch, session: int) -> None:
        self._permits, permit = os.pipe()
        evidence, self._evidences = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            while os.read(self._permits, 1):
                at = now()
                provider.lease_renew(HANDLE, session, at)
                os.write(self._evidences, at.to_bytes(8, "little"))
            os._exit(0)
        self._permit, self._evidence = permit, evidence

    def permit(self) -> None:
        os.write(self._permit, b"1")

    def renew(self) -> int:
        """Let it, and wait for it: its evidence."""
        self.permit()
        return int.from_bytes(os.read(self._evidence, 8), "little")


def starve(renewer: Renewer) -> None:
    """It may go on, and everybody whose priority is ordinary waits for ever. The machine has one processor."""
    assert os.cpu_count() == 1
    Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1")
    for server in FAIR_SERVERS.glob("cpu*/runtime"):  # Linux 6.12 has these beside it, for the same purpose
        server.write_text("0")
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    renewer.permit()
    while True:
        pass


def main(lease_ms: int, grace_ms: int, mode: str) -> None:
    provider, consumer = KernelSwitch(), KernelSwitch()
    session, joined, evidence = arm(provider, consumer, lease_ms, grace_ms)
    renewer = Renewer(provider, session) if mode in ("frozen", "starved") else None
    if renewer is not None:
        evidence = [renewer.renew() for _ in range(3)][-1]
    deadline = evidence + (lease_ms + grace_ms) * 1_000_000
    said = json.dumps({"deadline": deadline})
    if renewer is not None and mode == "starved":
        Path("/dev/kmsg").write_text(f"<0>{said}\n")
        starve(renewer)
    print(said, flush=True)
    if mode == "killed":
        provider.close()
    elif renewer is not None:
        os.kill(renewer.pid, signal.SIGSTOP)
        os.waitpid(renewer.pid, os.WUNTRACED)
        renewer.permit()
    left = False
    while True:
        print(now(), flush=True)
        if mode == "stale":
            with contextlib.suppress(SwitchError):
                provider.lease_renew(HANDLE, session, evidence)
        if mode == "left" and not left and now() > evidence + lease_ms * 1_000_000 + 100_000_000:
            left = True
            consumer.leave(HANDLE, joined, "g")
        if left and now() > deadline + 2_000_000_000:
            print(json.dumps({"alive": True}), flush=True)
            return
        time.sleep(TOLD_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
