# SPDX-License-Identifier: GPL-2.0-only
"""Kernel output: kept, and searched for reports of broken rules. A test with a splat has failed, passed or not."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass

SPLAT = re.compile(
    r"WARNING: (CPU|possible|suspicious|inconsistent|bad unlock|held lock|lock held|locking bug|chain cache|Nested)"
    r"|\bBUG: |kernel BUG at|\bOops: |general protection fault|KASAN: |KFENCE: |UBSAN: |KCSAN: |Kernel panic"
    r"|possible (circular|recursive|irq) |suspicious RCU usage|sleeping function called|scheduling while atomic"
    r"|INFO: task .* blocked for more than|INFO: rcu.* (stall|self-detected)|rcu: INFO: .*stall|soft lockup|hard LOCKUP"
    r"|unable to handle (kernel|page fault)|refcount_t: |list_(add|del) corruption|ODEBUG: |DEBUG_LOCKS_WARN_ON"
    r"|kmemleak: \d+ new suspected|Unreferenced object|\bBUG [\w-]+ \(.*\): "
)

EMULATOR = re.compile(r"\bOops: int3: ")
"""A machine with several processors under software emulation: one runs into the breakpoint with which another patches the kernel's text,
after it was taken out again. Seen in one of some hundreds of boots, in the kernel's first seconds, when nothing of ours is loaded."""


@dataclass(frozen=True, slots=True)
class Splat:
    """One bad line and where it was seen."""

    machine: str
    boot: int
    line: str

    def __str__(self) -> str:
        return f"{self.machine} (boot {self.boot}): {self.line}"


class SplatWatch:
    """Collects splats of all machines; console and kernel log report the same line, which counts once."""

    def __init__(self) -> None:
        self._seen: dict[Splat, None] = {}
        self._allowed: list[tuple[re.Pattern[str], str, int]] = []
        self._lock = threading.Lock()

    def allow(self, pattern: str, machine: str = "", boot: int = 0) -> None:
        """Lines matching `pattern` are part of the test; of one machine, and in one boot of it, if they are named."""
        self._allowed.append((re.compile(pattern), machine, boot))

    def _expected(self, splat: Splat) -> bool:
        return any(
            pattern.search(splat.line) and machine in ("", splat.machine) and boot in (0, splat.boot)
            for pattern, machine, boot in self._allowed
        )

    def feed(self, machine: str, boot: int, lines: Iterable[str]) -> None:
        for line in lines:
            if SPLAT.search(line):
                text = re.sub(r"^\s*\[\s*[\d.]+\]\s*", "", line).strip()
                with self._lock:
                    self._seen[Splat(machine, boot, text)] = None

    def forget(self) -> None:
        """Whatever was seen has failed a test already; the next one begins anew."""
        with self._lock:
            self._seen.clear()

    def excuse(self, machine: str, boot: int) -> bool:
        """Whether the emulator has broken this boot (EMULATOR), and not the kernel: then what it said is forgotten."""
        with self._lock:
            said = [s for s in self._seen if (s.machine, s.boot) == (machine, boot)]
            broken = any(EMULATOR.search(s.line) for s in said)
            for splat in said if broken else ():
                del self._seen[splat]
        return broken

    @property
    def found(self) -> list[Splat]:
        """What was seen and is not allowed."""
        with self._lock:
            return [s for s in self._seen if not self._expected(s)]
