# SPDX-License-Identifier: GPL-2.0-only
"""A daemon that goes on when memory is full and the machine is busy (SAFETY S20).

A cluster file system that is stopped has its dirty pages in memory; if this process had to wait for memory, it would wait for them, and
they wait for this process. So: no page of ours is ever missing, no allocation of ours waits for I/O, nobody runs before us for long, and
the OOM killer looks elsewhere. Import everything before calling ``setup()``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

MCL_CURRENT, MCL_FUTURE = 1, 2
PR_SET_IO_FLUSHER = 57
M_ARENA_MAX = -8
PRIORITY = 1
"The lowest real-time priority: before every ordinary process, after everybody who asked for more."
THREAD_STACK_BYTES = 512 << 10
"With locked memory each thread's whole stack is resident; the default would be 8 MiB."


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    ok: bool
    detail: str = ""
    "Why not."


def setup(reset_on_fork: bool = False) -> list[Step]:
    """Everything, as far as it is allowed; never raises. ``reset_on_fork`` gives children (and threads!) the ordinary priority."""
    if os.geteuid() != 0:
        # Tests and trials run as anybody; the daemon says it once and goes on.
        return [Step("realtime", False, "not root: memory is not locked, priority is ordinary")]
    return [
        _step("small_stacks", _small_stacks),
        _step("mlockall", _lock_memory),
        _step("io_flusher", _io_flusher),
        _step("scheduler", lambda: _scheduler(reset_on_fork)),
        _step("oom_score_adj", _oom),
    ]


def as_we_are() -> Callable[[], None]:
    """What a new thread calls to get the caller's priority. It does not inherit that when it is reset on fork; and a thread that waits for
    the processor while it holds the interpreter's lock makes us wait, too."""
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)

    def become() -> None:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, policy, param)

    return become


def _step(name: str, action: Callable[[], None]) -> Step:
    try:
        action()
    except (OSError, ValueError, AttributeError) as error:
        return Step(name, False, str(error))
    return Step(name, True)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)} ({errno.errorcode.get(code, code)})")


def _small_stacks() -> None:
    threading.stack_size(THREAD_STACK_BYTES)
    # Every thread would otherwise get a malloc arena of its own, all of it locked as it grows.
    _libc().mallopt(M_ARENA_MAX, 2)


def _lock_memory() -> None:
    _check(_libc().mlockall(MCL_CURRENT | MCL_FUTURE), "mlockall")


def _io_flusher() -> None:
    _check(_libc().prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0), "prctl(PR_SET_IO_FLUSHER)")


def _scheduler(reset_on_fork: bool) -> None:
    policy = os.SCHED_RR | (os.SCHED_RESET_ON_FORK if reset_on_fork else 0)
    os.sched_setscheduler(0, policy, os.sched_param(PRIORITY))


def _write_oom(value: int) -> None:
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(value))


def _oom() -> None:
    _write_oom(-1000)
