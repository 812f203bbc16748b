# SPDX-License-Identifier: GPL-2.0-only
"""Kernel uevents: online and offline of lockspaces, and what GFS2 says about its journals.

Only datagrams of the kernel (port id 0) of its own multicast group count: anybody may send to group 2, where udev re-broadcasts.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
DATAGRAM_MAX = 16384
"The kernel's own limit is 2 KiB of environment plus the path."
BUFFER_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class LockspaceEvent:
    """A thread sleeps in the kernel until event_done of this lockspace is written."""

    action: str
    "online or offline."
    lockspace: str


@dataclass(frozen=True, slots=True)
class Gfs2Recovery:
    """GFS2 has looked at the journal of somebody who failed; the replay is the kernel's own (recover_callbacks)."""

    table: str
    "cluster:file system."
    jid: int
    result: str
    "Done, or Failed, which usually means that another node has the journal."


@dataclass(frozen=True, slots=True)
class Overrun:
    """The socket lost uevents: look at /sys/kernel/dlm for joins that nobody told us of."""


Event = LockspaceEvent | Gfs2Recovery | Overrun


def parse(datagram: bytes) -> LockspaceEvent | Gfs2Recovery | None:
    """One datagram (``action@devpath`` NUL ``KEY=value`` NUL ...), None for what does not concern us."""
    head, _, body = datagram.partition(b"\0")
    action, at, path = head.partition(b"@")
    if not at:
        return None
    values: dict[str, str] = {}
    for item in body.split(b"\0"):
        key, equals, value = item.partition(b"=")
        if equals:
            values[key.decode("ascii", "replace")] = value.decode("utf-8", "replace")
    subsystem = values.get("SUBSYSTEM", "")
    if subsystem == "dlm" and action in (b"online", b"offline") and values.get("LOCKSPACE"):
        return LockspaceEvent(action.decode(), values["LOCKSPACE"])
    if subsystem == "gfs2" and action == b"change" and "RECOVERY" in values:
        jid = values.get("JID", "")
        table = values.get("LOCKTABLE") or path.decode("utf-8", "replace").rpartition("/")[2]
        return Gfs2Recovery(table, int(jid) if jid.isdigit() else -1, values["RECOVERY"])
    return None


def open_socket() -> socket.socket:
    """A bound uevent socket that does not block. Raises OSError."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, kind, NETLINK_KOBJECT_UEVENT)
    try:
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    sock.bind((0, KERNEL_GROUP))
    return sock


class UeventReader:
    """Reads a bound socket, ours or an inherited one. ``keep`` sees each lockspace event before the next datagram is read: what was
    taken from the socket is nowhere else any more, so it is journalled at once (SAFETY S17)."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    def fileno(self) -> int:
        return self._sock.fileno()

    def read(self, keep: Callable[[LockspaceEvent], None]) -> list[Event]:
        """All that is there, without waiting."""
        found: list[Event] = []
        while True:
            try:
                data, (port, groups) = self._sock.recvfrom(DATAGRAM_MAX)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.append(Overrun())
                continue
            if port != 0 or not groups & KERNEL_GROUP:
                continue
            event = parse(data)
            if isinstance(event, LockspaceEvent):
                keep(event)
            if event is not None:
                found.append(event)

    def close(self) -> None:
        self._sock.close()
