# SPDX-License-Identifier: GPL-2.0-only
"""Which accelerator works, found by booting; and the host's TSC rate, which emulated guests must be told."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import time
from functools import cache
from pathlib import Path

from harness.cache import cache_dir, locked, say
from harness.kernels import Kernel

PROBE_LIMIT_S = 15.0


def qemu_accel(name: str) -> list[str]:
    """QEMU's options for `name`: "kvm" or "tcg"."""
    if name == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,tb-size=256", "-cpu", "max"]


def _boots_with_kvm(kernel: Kernel) -> bool:
    """Boot into an init that ends at once; the kernel's own line about starting it is the proof."""
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-M", "q35", "-m", "256"]
    argv += [*qemu_accel("kvm"), "-kernel", str(kernel.vmlinux), "-initrd", str(kernel.initrd), "-no-reboot"]
    argv += ["-serial", "stdio", "-append", "console=ttyS0 panic=-1 rdinit=/dev/null"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return b"as init process" in done.stdout


def _facts_path() -> Path:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return cache_dir() / f"host-{boot}.json"


def choose(kernel: Kernel) -> str:
    """ "kvm" if a probe machine booted with it (remembered for this boot of the host), else "tcg".

    `VCS_ACCEL` overrides.
    """
    forced = os.environ.get("VCS_ACCEL")
    if forced:
        return forced
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    path = _facts_path()
    with locked("accel"):
        if not path.exists():
            say(f"probing KVM (at most {PROBE_LIMIT_S:.0f} s)")
            works = _boots_with_kvm(kernel)
            path.write_text(json.dumps({"accel": "kvm" if works else "tcg"}), encoding="ascii")
            say(f"KVM {'works' if works else 'does not work here'}: {'kvm' if works else 'tcg'}")
        return str(json.loads(path.read_text(encoding="ascii"))["accel"])


@cache
def host_tsc_khz() -> int:
    """The host's TSC rate in kHz, measured over 0.2 s against CLOCK_MONOTONIC_RAW; 0 where it cannot be.

    A guest that calibrates against an emulated timer on a busy host is wrong by up to four times.
    """
    if os.uname().machine != "x86_64":
        return 0
    rdtsc = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return 0
    memory.write(rdtsc)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    read_tsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)

    def sample() -> tuple[int, int]:
        best = (1 << 62, 0, 0)
        for _ in range(20):  # the pair taken closest together: not interrupted in between
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            ticks = read_tsc()
            after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            best = min(best, (after - before, ticks, (before + after) // 2))
        return best[1], best[2]

    ticks, start = sample()
    time.sleep(0.2)
    ticks_end, end = sample()
    return round((ticks_end - ticks) * 1_000_000 / (end - start))
