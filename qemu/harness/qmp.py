# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's monitor: a few commands, and the events that tell why a machine stopped."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from harness.errors import ChannelClosed, LabError, LabTimeout


class Qmp:
    """One monitor connection over a connected socket; events go to a callback, in the reader's thread."""

    def __init__(self, sock: socket.socket, name: str, on_event: Callable[[str, dict[str, Any]], None]) -> None:
        self._socket = sock
        self._on_event = on_event
        self._answer = threading.Event()
        self._reply: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._gone = False
        self._thread = threading.Thread(target=self._run, name=f"qmp-{name}", daemon=True)
        self._thread.start()
        self._socket.sendall(b'{"execute": "qmp_capabilities"}\n')

    def _run(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if "event" in message:
                    self._on_event(message["event"], message.get("data", {}))
                elif message.get("id") == "vcs":
                    self._reply = message
                    self._answer.set()
        self._gone = True
        self._answer.set()
        self._socket.close()

    def command(self, name: str, *, wait: float = 10.0, **arguments: Any) -> Any:
        """Execute one command. Raises ChannelClosed, LabTimeout or LabError with QEMU's words."""
        with self._lock:
            self._answer.clear()
            if self._gone:
                raise ChannelClosed("the machine is off")
            self._reply = {}
            request = {"execute": name, "arguments": arguments, "id": "vcs"}
            try:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
            except OSError as error:
                raise ChannelClosed(f"the machine is gone: {error}") from error
            if not self._answer.wait(wait):
                raise LabTimeout(f"QEMU did not answer {name} in {wait:.0f} s")
            if "error" in self._reply:
                raise LabError(f"QEMU: {name}: {self._reply['error'].get('desc')}")
            if "return" not in self._reply:
                raise ChannelClosed(f"the machine went away during {name}")
            return self._reply["return"]

    def join(self, timeout: float) -> None:
        """Wait until every event has been handled."""
        self._thread.join(timeout)
