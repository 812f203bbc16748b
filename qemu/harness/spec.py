# SPDX-License-Identifier: GPL-2.0-only
"""Machines described as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.kernels import Kernel

NET = "10.77.0"


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One virtual machine. What every boot of it has in common."""

    node: int  #: node id, host name nodeN, address 10.77.0.N, last byte of the MAC
    kernel: Kernel
    root: Path  #: the root image; every boot has a fresh snapshot of it, and it is never written
    payload: Path
    accel: str
    tsc_khz: int
    memory_mib: int = 768
    cpus: int = 1
    shared_disks: tuple[Path, ...] = ()
    direct_io: bool = True  #: the shared disks' file system can do O_DIRECT
    append: str = ""  #: added to the kernel's command line
    own_disk: Path | None = None  #: a small ext4 of the node's own that outlives its power (serial: own)
    root_kept: bool = False  #: no snapshots: the root is the node's own copy of the image, and outlives its power, too

    @property
    def name(self) -> str:
        return f"node{self.node}"

    @property
    def address(self) -> str:
        return f"{NET}.{self.node}"

    @property
    def mac(self) -> str:
        return f"52:54:00:77:00:{self.node:02x}"


@dataclass(frozen=True, slots=True)
class Result:
    """A command's end: exit status (negative: killed by that signal), output, and host times in ns."""

    rc: int
    out: str
    err: str
    started_ns: int
    ended_ns: int
    timed_out: bool = False

    def __bool__(self) -> bool:
        return self.rc == 0

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass(slots=True)
class Spawned:
    """A background process of a guest."""

    name: str
    pid: int
    boot: int
    rc: int | None = None  #: set when it has ended
    log: Path = field(default_factory=Path)  #: its output on the host, live
