# SPDX-License-Identifier: GPL-2.0-only
"""Everything that happened on every node, and in the lab, on the host's clock."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.logs import BootLogs
    from harness.machine import ClockOffset



@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One event; `node` 0 is the lab itself."""

    host_ns: int
    node: int
    source: str
    event: str
    details: str = ""


@dataclass(frozen=True, slots=True)
class _Boot:
    node: int
    logs: BootLogs
    offset: ClockOffset


class Timeline:
    """Collects live; merges when asked."""

    def __init__(self) -> None:
        self.start_ns = time.monotonic_ns()
        self._host: list[Entry] = []
        self._boots: list[_Boot] = []
        self._lock = threading.Lock()

    def host(self, event: str, node: int, *, at_ns: int | None = None, **details: Any) -> None:
        """Something the lab did or saw, now or at `at_ns`."""
        text = " ".join(f"{k}={v}" for k, v in details.items())
        with self._lock:
            self._host.append(Entry(at_ns or time.monotonic_ns(), node, "lab", event, text))

    def acts(self, event: str, node: int = 0) -> list[Entry]:
        """What the lab itself noted under that name, of ``node`` or (0) of all, in the order of noting."""
        with self._lock:
            return [e for e in self._host if e.event == event and node in (0, e.node)]

    def add_boot(self, node: int, boot: int, logs: BootLogs, offset: ClockOffset) -> None:
        """A machine is up: its clocks are known from here on."""
        del boot
        with self._lock:
            self._boots.append(_Boot(node, logs, offset))

    @staticmethod
    def _events(boot: _Boot) -> list[Entry]:
        entries = []
        for path in sorted(boot.logs.folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    stamp = int(record.pop("t"))
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue  # the last line of a killed node may be cut short
                record.pop("node", None)
                source, event = str(record.pop("source", path.stem)), str(record.pop("event", ""))
                text = " ".join(f"{k}={json.dumps(v) if isinstance(v, (list, dict)) else v}" for k, v in record.items())
                entries.append(Entry(stamp + boot.offset.boottime_ns, boot.node, source, event, text))
        return entries

    @staticmethod
    def _kernel(boot: _Boot) -> list[Entry]:
        shift = boot.logs.printk_offset_ns + boot.offset.boottime_ns
        return [Entry(us * 1000 + shift, boot.node, "kernel", text) for us, text in list(boot.logs.kmsg)]

    def entries(self, *, kernel: bool = True) -> list[Entry]:
        """All events so far, by host time."""
        with self._lock:
            merged, boots = list(self._host), list(self._boots)
        for boot in boots:
            merged += self._events(boot)
            if kernel:
                merged += self._kernel(boot)
        return sorted(merged)

    def render(self, *, kernel: bool = True) -> str:
        """One line each: seconds since the start, node, source, event, details."""
        lines = []
        for e in self.entries(kernel=kernel):
            who = f"node{e.node}" if e.node else "lab"
            lines.append(f"{(e.host_ns - self.start_ns) / 1e9:10.4f} {who:6} {e.source:9} {e.event} {e.details}".rstrip())
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Write the rendered timeline."""
        path.write_text(self.render(), encoding="utf-8")
