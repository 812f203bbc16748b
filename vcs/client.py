# SPDX-License-Identifier: GPL-2.0-only
"""The command line's side of the control socket: Varlink over a plain blocking socket, so that a command starts quickly.

A Varlink message is one JSON object and a NUL byte. The server's side is vcs/control.py; both take the names from here.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar

from vcs.errors import DaemonError

RUN_DIR = "/run/vcs"
SOCKET_PATH = f"{RUN_DIR}/vcs.sock"
INTERFACE = "org.vcs.Cluster"
FENCING = "org.vcs.Fencing"
FAILED = f"{INTERFACE}.Failed"
REPLY_MAX = 64 << 20
"Bytes. A longer reply is no reply of vcsd."
_ANCILLARY = socket.CMSG_SPACE(4 * 4)
"Room for a few descriptors; the kernel closes those for which there is none."
CALL_TIMEOUT_S = 30.0
"Calls that answer at once; leaving and following have no limit."

Json = dict[str, Any]
T = TypeVar("T")


class NotRunning(DaemonError):
    """Nobody listens on the control socket."""


class NotAllowed(DaemonError):
    """The control socket is there and this user may not open it."""


class Client:
    """One connection to vcsd. Use it as a context manager; every method raises DaemonError."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self.path = path
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(CALL_TIMEOUT_S)
        try:
            self._socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            self._socket.close()
            raise NotRunning("vcsd is not running", "start it with `systemctl start vcsd`") from None
        except PermissionError:
            self._socket.close()
            raise NotAllowed(f"{path}: permission denied", "run this as root") from None
        except OSError as error:
            self._socket.close()
            raise DaemonError(f"{path}: {error.strerror or error}", "is the path right?") from None

    def close(self) -> None:
        self._drop_descriptors()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def call(self, method: str, parameters: Mapping[str, object] | None = None, *, wait: bool = False) -> Json:
        """One call, one reply: its parameters. ``method`` without a dot is of our interface; ``wait``: no time limit."""
        self._socket.settimeout(None if wait else CALL_TIMEOUT_S)
        self._send(method, parameters, {})
        return self._reply()[0]

    def stream(self, method: str, parameters: Mapping[str, object] | None = None) -> Iterator[Json]:
        """One call, many replies, until the server ends them or the connection is lost."""
        self._socket.settimeout(None)
        self._send(method, parameters, {"more": True})
        more = True
        while more:
            reply, more = self._reply()
            yield reply

    def status(self) -> Json:
        return self._value(self.call("Status"), "status", dict)

    def nodes(self) -> list[Json]:
        return self._value(self.call("Nodes"), "nodes", list)

    def groups(self) -> list[Json]:
        return self._value(self.call("Groups"), "groups", list)

    def why(self) -> list[Json]:
        return self._value(self.call("Why"), "waits", list)

    def ring(self) -> Json:
        return self._value(self.call("Ring"), "ring", dict)

    def metrics(self) -> str:
        return self._value(self.call("Metrics"), "text", str)

    def events(self, follow: bool = False) -> Iterator[Json]:
        for reply in self.stream("Events", {"follow": follow}):
            yield from self._value(reply, "events", list)

    def leave(self) -> None:
        self.call("Leave", wait=True)

    def expect_votes(self, votes: int) -> None:
        self.call("ExpectVotes", {"votes": votes})

    def maintenance(self, for_ms: int, reason: str = "") -> None:
        """Begin one, or end it with 0."""
        self.call("Maintenance", {"for_ms": for_ms, "reason": reason})

    def shut_down(self) -> None:
        self.call("ShutDown")

    def fence_ack(self, nodeid: int) -> None:
        self.call("FenceAck", {"nodeid": nodeid})

    def fence_node(self, nodeid: int, action: str) -> None:
        self.call(f"{FENCING}.Fence", {"nodeid": nodeid, "action": action})

    def fence_methods(self) -> list[Json]:
        return self._value(self.call(f"{FENCING}.Methods"), "methods", list)

    def fence_devices(self, check: bool = False) -> list[Json]:
        """What the last check said; with ``check`` all devices are asked first, which may take long."""
        return self._value(self.call(f"{FENCING}.{'Check' if check else 'Devices'}", wait=check), "devices", list)

    def fence_history(self) -> list[Json]:
        return self._value(self.call(f"{FENCING}.History"), "fences", list)

    def failovers(self) -> list[Json]:
        return self._value(self.call(f"{FENCING}.Failovers"), "failovers", list)

    def open_channel(self, group: str, explicit: bool) -> int:
        """A batch channel of the group: the program's descriptor of it (vcs/channel.py makes use of it)."""
        self._descriptors.clear()
        parameters = self.call("OpenChannel", {"group": group, "explicit": explicit})
        at = parameters.get("channel")
        if not isinstance(at, int) or at != 0 or len(self._descriptors) != 1:
            self._drop_descriptors()
            raise DaemonError("the reply of vcsd holds no channel", "are `vcs` and vcsd of the same version?")
        return self._descriptors.pop()

    def _drop_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _send(self, method: str, parameters: Mapping[str, object] | None, flags: Json) -> None:
        call = {"method": method if "." in method else f"{INTERFACE}.{method}", "parameters": dict(parameters or {}), **flags}
        try:
            self._socket.sendall(json.dumps(call).encode() + b"\0")
        except OSError as error:
            raise self._lost(error) from None

    def _reply(self) -> tuple[Json, bool]:
        """The next reply: (parameters, whether more follow)."""
        try:
            reply = json.loads(self._message())
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict) or not isinstance(reply.get("parameters", {}), dict):
            raise DaemonError(f"{self.path} does not speak Varlink", "is it the socket of vcsd?")
        parameters = reply.get("parameters", {})
        if reply.get("error"):
            raise _refusal(str(reply["error"]), parameters)
        return parameters, reply.get("continues") is True

    def _message(self) -> bytes:
        while (end := self._buffer.find(0)) < 0:
            if len(self._buffer) > REPLY_MAX:
                raise DaemonError(f"the reply of vcsd is longer than {REPLY_MAX} bytes", "this is a bug: please report it")
            try:
                data, ancillary, _flags, _address = self._socket.recvmsg(1 << 16, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
            except OSError as error:
                raise self._lost(error) from None
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._descriptors += struct.unpack(f"{len(content) // 4}i", content)
            if not data:
                raise DaemonError("vcsd closed the connection", "look at its journal: `journalctl -u vcsd`")
            self._buffer += data
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return message

    def _lost(self, error: OSError) -> DaemonError:
        if isinstance(error, TimeoutError):
            return DaemonError(f"vcsd has not answered for {CALL_TIMEOUT_S:.0f} s", "look at its journal: `journalctl -u vcsd`")
        return DaemonError(f"connection to vcsd lost: {error.strerror or error}", "look at its journal: `journalctl -u vcsd`")

    def _value(self, parameters: Json, name: str, kind: type[T]) -> T:
        value = parameters.get(name)
        if not isinstance(value, kind):
            raise DaemonError(f"the reply of vcsd holds no {name}", "are `vcs` and vcsd of the same version?")
        return value


def _refusal(name: str, parameters: Json) -> DaemonError:
    """A Varlink error as an exception."""
    if name == FAILED:
        error = DaemonError(str(parameters.get("message", "refused")), str(parameters.get("remedy", "")))
        code = parameters.get("exit_code")
        if isinstance(code, int) and 0 < code < 126:
            error.exit_code = code
        return error
    about = ", ".join(f"{k} {v}" for k, v in parameters.items())
    return DaemonError(f"vcsd refused the call: {name}{f' ({about})' if about else ''}", "are `vcs` and vcsd of the same version?")
