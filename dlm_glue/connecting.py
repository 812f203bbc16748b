# SPDX-License-Identifier: GPL-2.0-only
"""Ends the kernel's attempts to connect to a node that is dropped, so that dropping it does not wait for them.

6.12's DLM connects in a work item that holds the connection's lock, and ``rmdir comms/N`` takes that lock. A connect to a node without
power ends when its address cannot be resolved (3 s), or, behind a router, when TCP has given up (more than two minutes). The start of
every lockspace waits for that. SOCK_DESTROY (what ``ss --kill`` does) ends the connect at once with ECONNABORTED; the work item then rests
for one second before it sees that it is to stop, which nobody can shorten. 6.1 connects without waiting, and there this finds nothing.

SCTP has no such call in the kernel: its connect ends by itself after five seconds.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
from collections.abc import Collection, Iterator
from ipaddress import ip_address

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
SYN_SENT = 2
HEADER = struct.Struct("=IHHII")
REQUEST = struct.Struct("=4BI")
"Family, protocol, ext, pad, states; the socket's id follows."
SOCKET_ID = struct.Struct("=2s2s16s16sI8s")
"Ports and addresses in network order, interface, cookie."
MESSAGE_HEAD = 4
AGAIN_S = 0.01
"How often it is looked again while a connection is being closed: the next try of a connect begins a second after the last one failed."
PREPARE_S = 30.0

logger = logging.getLogger("dlm_glue")


def _ask(sock: socket.socket, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """The bodies of all answers to one request. Raises OSError."""
    sock.send(HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)
    while True:
        data = sock.recv(1 << 16)
        while len(data) >= HEADER.size:
            length, answer, _, _, _ = HEADER.unpack_from(data)
            payload, data = data[HEADER.size : length], data[(length + 3) & ~3 :]
            if answer == NLMSG_ERROR:
                code = -int(struct.unpack_from("=i", payload)[0])
                if code:
                    raise OSError(code, "socket diagnostics")
                return
            if answer == NLMSG_DONE:
                return
            yield payload


def _connecting(sock: socket.socket, family: int, port: int) -> list[tuple[bytes, bytes]]:
    """(destination in 16 bytes, socket id) of every TCP socket that connects to ``port``."""
    found = []
    body = REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << SYN_SENT) + bytes(SOCKET_ID.size)
    for payload in _ask(sock, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, body):
        raw = payload[MESSAGE_HEAD : MESSAGE_HEAD + SOCKET_ID.size]
        _, dport, _, destination, _, _ = SOCKET_ID.unpack(raw)
        if int.from_bytes(dport, "big") == port:
            found.append((destination, raw))
    return found


def abort(addresses: Collection[str], port: int) -> int:
    """End every connect of this machine to ``port`` of the addresses; how many there were. Raises OSError."""
    wanted = {ip_address(a).packed.ljust(16, b"\0") for a in addresses}
    families = {socket.AF_INET6 if ip_address(a).version == 6 else socket.AF_INET for a in addresses}
    ended = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(1.0)
        for family in families:
            for destination, raw in _connecting(sock, family, port):
                if destination not in wanted:
                    continue
                body = REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << SYN_SENT) + raw
                with contextlib.suppress(FileNotFoundError):  # it has ended by itself
                    list(_ask(sock, SOCK_DESTROY, NLM_F_ACK, body))
                    ended += 1
    return ended


def prepare(port: int) -> None:
    """Ask once for nothing: the kernel loads what answers at its first use, by a program that it starts, and in the middle of a failover
    that costs a second, or waits for a disk. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(PREPARE_S)
        for family in (socket.AF_INET, socket.AF_INET6):
            _connecting(sock, family, port)


@contextlib.contextmanager
def aborted(addresses: Collection[str], port: int) -> Iterator[None]:
    """As long as this lasts, no connect to these addresses does."""
    stop = threading.Event()

    def watch() -> None:
        while True:
            try:
                ended = abort(addresses, port)
            except OSError as error:
                logger.info("connects to %s cannot be ended: %s", ", ".join(addresses), error)
                return
            if ended:
                logger.info("%d connects to %s ended", ended, ", ".join(addresses))
            if stop.wait(AGAIN_S):
                return

    thread = threading.Thread(target=watch, name="connecting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
