# SPDX-License-Identifier: GPL-2.0-only
"""Keeps a virtual machine at the edge of its memory: dirty pages of a cluster file system and anonymous memory, until SIGTERM.

    memory_hog.py FILE EDGE_MIB

A child dirties FILE again and again without ever syncing, and takes memory until less than EDGE_MIB is available; when the OOM killer ends
it, the next child does the same. Nothing protects it but that: it is the first that the OOM killer takes. Every half second the parent
prints a line of JSON: {"t": CLOCK_BOOTTIME ns, "available_kib", "dirty_kib", "direct_reclaims", "oom_kills", "children"}; the counters
are the kernel's since boot. Self-contained: it is started before memory is short and imports nothing later.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import sys
import time

CHUNK = 2 << 20
DIRTY_BYTES = 32 << 20
"Of FILE; more than the kernel lets stay dirty in a machine of this size, so that writers wait for write-back."
BLOCK = 512 << 10
REPORT_S = 0.5


def number(path: str, *keys: str) -> int:
    """The sum of the values of ``keys`` in a file like /proc/meminfo."""
    with open(path, encoding="ascii") as file:
        rows = (line.split() for line in file)
        return sum(int(row[1]) for row in rows if row[0].rstrip(":") in keys)


def write_score(value: int) -> None:
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(value))


def hog(path: str, edge_kib: int) -> None:
    """Never returns. Memory is taken faster than the file is dirtied until the edge, then the two alternate."""
    write_score(1000)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    block = os.urandom(BLOCK)
    taken: list[mmap.mmap] = []
    position = 0
    while True:
        if number("/proc/meminfo", "MemAvailable") > edge_kib:
            chunk = mmap.mmap(-1, CHUNK)
            for offset in range(0, CHUNK, mmap.PAGESIZE):
                chunk[offset] = 1
            taken.append(chunk)
        with contextlib.suppress(OSError):
            os.pwrite(fd, block, position)
            position = (position + BLOCK) % DIRTY_BYTES


def report(children: int) -> None:
    vmstat = "/proc/vmstat"
    print(
        json.dumps({
            "t": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            "available_kib": number("/proc/meminfo", "MemAvailable"),
            "dirty_kib": number("/proc/meminfo", "Dirty", "Writeback"),
            "direct_reclaims": number(vmstat, "allocstall_dma", "allocstall_dma32", "allocstall_normal", "allocstall_movable"),
            "oom_kills": number(vmstat, "oom_kill"),
            "children": children,
        }),
        flush=True,
    )


def main(path: str, edge_mib: int) -> int:
    write_score(-1000)
    children = child = 0

    def end(*_: object) -> None:
        if child:
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        if child and os.waitpid(child, os.WNOHANG)[0]:
            child = 0
        if not child:
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                hog(path, edge_mib << 10)
            children += 1
        report(children)
        time.sleep(REPORT_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
