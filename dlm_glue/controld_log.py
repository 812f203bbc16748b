# SPDX-License-Identifier: GPL-2.0-only
"""What ``dlm_tool dump`` shows: the last lines of this process, ``MONOTIME [LOCKSPACE] text``, in dlm_controld's form.

Lines come from the event log and from every change of the kernel's trees, so they are written by several threads.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from dlm_glue.lockspace import Tree
from vcs.events import RESERVED

BYTES_MAX = 512 << 10
"Older lines go when the text is longer than this."
LINE_MAX = 512
HEXADECIMAL = ("recover_status",)


class LogRing:
    """A bounded text of whole lines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, bytes_max: int = BYTES_MAX) -> None:
        self._clock = clock
        self._max = bytes_max
        self._lines: deque[str] = deque()
        self._size = 0
        self._lock = threading.Lock()

    def add(self, text: str, lockspace: str = "") -> None:
        where = f"{lockspace} " if lockspace else ""
        line = f"{int(self._clock())} {where}{text}".replace("\n", " ")[:LINE_MAX] + "\n"
        with self._lock:
            self._lines.append(line)
            self._size += len(line)
            while self._size > self._max:
                self._size -= len(self._lines.popleft())

    def note(self, record: Mapping[str, object]) -> None:
        """A record of the event log."""
        lockspace = record.get("lockspace", "")
        words = [f"{k} {_word(k, v)}" for k, v in record.items() if k not in RESERVED and k != "lockspace"]
        self.add(" ".join([str(record["event"]), *words]), str(lockspace))

    def text(self) -> str:
        with self._lock:
            return "".join(self._lines)


def _word(name: str, value: object) -> str:
    if name in HEXADECIMAL and isinstance(value, int):
        return f"{value:x}"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f'"{value}"' if isinstance(value, str) and (" " in value or not value) else str(value)


class LoggedTree(Tree):
    """A tree whose changes are told to the log, in dlm_controld's words, when they have worked."""

    def __init__(self, tree: Tree, log: LogRing) -> None:
        self._tree = tree
        self._log = log

    def mkdir(self, path: str) -> None:
        self._tree.mkdir(path)
        self._log.add(f'mkdir "{path}"')

    def rmdir(self, path: str) -> None:
        self._tree.rmdir(path)
        self._log.add(f'rmdir "{path}"')

    def write(self, path: str, data: bytes) -> None:
        self._tree.write(path, data)
        text = data.decode("ascii") if data.isascii() and data.decode("ascii").isprintable() else f"{len(data)} bytes"
        self._log.add(f'write "{text}" to "{path}"')

    def read(self, path: str) -> str:
        return self._tree.read(path)

    def listdir(self, path: str) -> list[str]:
        return self._tree.listdir(path)

    def exists(self, path: str) -> bool:
        return self._tree.exists(path)
