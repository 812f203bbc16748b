# SPDX-License-Identifier: GPL-2.0-only
"""The engine's side of last_gasp.py: start it, keep it informed, tell it goodbye, start it again should it die.

A process that is killed says nothing, and its peers would wait for a silence to last long enough. The small child has the sockets and
a goodbye that was sealed beforehand, and the end of its socket to us is our death certificate from the kernel. It is told goodbye
when the engine leaves by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from membership.totem.last_gasp import MESSAGE_MAX

SCRIPT = Path(__file__).with_name("last_gasp.py")
AGAIN_S = 1.0
"Pause before a guardian that died is started again."

Target = tuple[int, tuple[str | int, ...]]
"(index into the sockets, address)"


class Guardian:
    """Optional by nature: without it a death is noticed by silence. All methods are called on the event loop's thread."""

    def __init__(self, note: Callable[[str, dict[str, object]], None]) -> None:
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._told: bytes | None = None
        self._sockets: list[socket.socket] = []
        self._retry: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def tell(self, frame: bytes, sockets: Sequence[socket.socket], targets: Sequence[Target]) -> None:
        """What to send, and where, when this process is dead. Replaces what was told before. ``sockets`` are not the engine's own: a
        port that a dying guardian holds could not be bound again."""
        message = json.dumps({"frame": frame.hex(), "targets": targets}).encode()
        if len(message) > MESSAGE_MAX:
            self._note("guardian_refused", {"problem": f"{len(targets)} addresses are too many"})
            return
        for sock in self._sockets:
            sock.close()
        self._told, self._sockets = message, list(sockets)
        if self._process is None:
            self._start()
        else:
            self._send()

    def stand_down(self, gasp: bool = False) -> None:
        """The engine ends by itself: nothing is to be sent. ``gasp``: it cannot go on, so the peers are to be told now."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for sock in self._sockets:
            sock.close()
        process, control = self._process, self._forget()
        if process is None or control is None:
            return
        if not gasp:
            with contextlib.suppress(OSError):
                control.send(b"{}")
        control.close()
        # It ends at once; whoever waits for it must not be the loop.
        threading.Thread(target=process.wait, daemon=True).start()

    def _start(self) -> None:
        self._retry = None
        if self._told is None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SCRIPT), str(theirs.fileno())], pass_fds=(theirs.fileno(),), cwd="/",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        except OSError as e:
            ours.close()
            self._note("guardian_failed", {"problem": str(e)})
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._control = ours
        self._loop.add_reader(ours.fileno(), self._ended)
        self._send()

    def _send(self) -> None:
        if self._control is None or self._told is None:
            return
        try:
            socket.send_fds(self._control, [self._told], [sock.fileno() for sock in self._sockets])
        except OSError as e:
            self._note("guardian_failed", {"problem": str(e)})

    def _ended(self) -> None:
        """It never says anything, so its socket is readable when it has died."""
        process, control = self._process, self._forget()
        if process is None or control is None:
            return
        control.close()
        self._note("guardian_ended", {"code": process.wait()})
        self._retry = self._loop.call_later(AGAIN_S, self._start)

    def _forget(self) -> socket.socket | None:
        control, self._control, self._process = self._control, None, None
        if control is not None:
            self._loop.remove_reader(control.fileno())
        return control
