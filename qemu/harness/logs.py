# SPDX-License-Identifier: GPL-2.0-only
"""What one boot of one machine leaves on the host: console, kernel log, files streamed live by the agent."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from harness.console import SplatWatch

MARK = re.compile(r"lab: boottime (\d+)$")


class ConsoleReader:
    """Copies a serial console to a file, to the splat watch, and to whoever has attached to it."""

    def __init__(self, sock: socket.socket, logs: BootLogs) -> None:
        self._socket = sock
        self._logs = logs
        self.taps: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, name=f"console-{logs.machine}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        rest = b""
        with contextlib.suppress(OSError), open(self._logs.folder / "console.log", "ab", buffering=0) as file:
            while data := self._socket.recv(65536):
                file.write(data)
                *lines, rest = (rest + data).split(b"\n")
                self._logs.scan(line.decode(errors="replace").rstrip("\r") for line in lines)
                for tap in list(self.taps):
                    try:
                        tap.sendall(data)
                    except OSError:
                        self.taps.remove(tap)
        self._logs.scan([rest.decode(errors="replace")])
        self._socket.close()

    def type(self, data: bytes) -> None:
        """Send to the console's input."""
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)


class BootLogs:
    """The files of one boot in one folder."""

    def __init__(self, folder: Path, machine: str, boot: int, splats: SplatWatch) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.machine = machine
        self.boot = boot
        self._splats = splats
        self.kmsg: list[tuple[int, str]] = []  #: (printk's clock in us, text)
        self.printk_offset_ns = 0  #: CLOCK_BOOTTIME = printk's clock + this

    def console_from(self, sock: socket.socket) -> ConsoleReader:
        return ConsoleReader(sock, self)

    def scan(self, lines: Iterable[str]) -> None:
        self._splats.feed(self.machine, self.boot, lines)

    def append_file(self, path: str, data: bytes) -> None:
        with open(self.folder / Path(path).name, "ab") as file:
            file.write(data)

    def append_kmsg(self, record: bytes) -> None:
        """One record of /dev/kmsg: `priority,sequence,us,flags;text`, then continuation lines with a leading blank."""
        head, _, text = record.decode(errors="replace").partition(";")
        fields = head.split(",")
        message = text.split("\n", 1)[0]
        stamp_us = int(fields[2]) if len(fields) > 2 and fields[2].isdigit() else 0
        self.kmsg.append((stamp_us, message))
        if mark := MARK.search(message):
            self.printk_offset_ns = int(mark[1]) - stamp_us * 1000
        with open(self.folder / "kmsg.log", "a", encoding="utf-8") as file:
            file.write(f"[{stamp_us // 1_000_000:5d}.{stamp_us % 1_000_000:06d}] {message}\n")
        self.scan([message])

    def tail(self, lines: int = 25) -> str:
        """The end of console and QEMU's log, for an error message."""
        parts = []
        for name in ("qemu.log", "console.log"):
            path = self.folder / name
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            if text.strip():
                parts.append(f"end of {path}:\n" + "\n".join(text.splitlines()[-lines:]))
        return "\n".join(parts) or f"nothing was printed ({self.folder})"
