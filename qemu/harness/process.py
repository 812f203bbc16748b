# SPDX-License-Identifier: GPL-2.0-only
"""QEMU as a child process that cannot outlive the harness."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# A parent-death signal fires when the *thread* that forked ends: one thread that lives as long as we do forks them all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def start(argv: Sequence[str], descriptors: Sequence[socket.socket], log: Path) -> subprocess.Popen[bytes]:
    """Start `argv`, which inherits `descriptors` (closed here afterwards); its own messages go to `log`."""

    def fork() -> subprocess.Popen[bytes]:
        with open(log, "ab") as errors:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[s.fileno() for s in descriptors],
                start_new_session=True,  # an interrupt at the terminal is for the harness, which ends them in order
            )

    try:
        return _spawner.submit(fork).result()
    finally:
        for sock in descriptors:
            sock.close()


class Watcher:
    """Waits for a process's end in a thread and notes the host's time."""

    def __init__(self, process: subprocess.Popen[bytes], on_end: Callable[[int, int], None]) -> None:
        self.process = process
        self.ended_ns = 0
        self._done = threading.Event()
        self._on_end = on_end
        threading.Thread(target=self._run, name=f"wait-{process.pid}", daemon=True).start()

    def _run(self) -> None:
        code = self.process.wait()
        self.ended_ns = time.monotonic_ns()
        self._done.set()
        self._on_end(code, self.ended_ns)

    def wait(self, timeout: float) -> bool:
        """Whether the process has ended, its I/O with it."""
        return self._done.wait(timeout)
