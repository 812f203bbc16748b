# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's plock device, and who sleeps in it.

The device has no state of an open file: its lists belong to the kernel, so a process that opens it goes on where another one ended. It has
no read_iter: readv(2) and writev(2) call it once for each buffer, so that one system call moves many records.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Protocol

from dlm_glue.plock_wire import SIZE
from vcs.errors import VcsError

PATHS = ("/dev/misc/dlm_plock", "/dev/dlm_plock")
"What udev's rule makes of it, and the kernel's own name."


class Device(Protocol):
    def fileno(self) -> int: ...

    def read(self, slots: list[memoryview]) -> int:
        """Requests into ``slots``; how many. 0: there is none."""

    def write(self, records: Sequence[bytes | memoryview]) -> int:
        """Answers, in order; how many were taken."""

    def sleepers(self, pid: int) -> int:
        """Threads of a process that wait for an answer."""

    def close(self) -> None: ...


class KernelDevice:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open(cls) -> KernelDevice:
        """Raises VcsError."""
        for path in PATHS:
            with contextlib.suppress(FileNotFoundError):
                return cls(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        raise VcsError(f"{PATHS[0]} is not there", "load the module dlm")

    def fileno(self) -> int:
        return self._fd

    def read(self, slots: list[memoryview]) -> int:
        try:
            return os.readv(self._fd, slots) // SIZE
        except BlockingIOError:
            return 0

    def write(self, records: Sequence[bytes | memoryview]) -> int:
        return os.writev(self._fd, records) // SIZE

    def sleepers(self, pid: int) -> int:
        """By the kernel function in which each thread sleeps."""
        found = 0
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/wchan", encoding="ascii") as file:
                    found += file.read().startswith(("dlm_posix_", "do_lock_cancel"))
        return found

    def close(self) -> None:
        os.close(self._fd)
