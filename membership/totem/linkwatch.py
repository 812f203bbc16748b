# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel says about our own end of each link: carrier, address, MTU. By rtnetlink, in the few bytes that this needs."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence

_NLMSG = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")
NETLINK_ROUTE = 0
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
GROUPS = 0x1 | 0x10 | 0x100
"RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR"
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFF_UP, IFF_LOOPBACK, IFF_RUNNING = 0x1, 0x8, 0x40
_BUFFER = 1 << 16


class LinkWatch:
    """``fileno`` is readable when something changed; ``states`` tells what holds now. Raises OSError when it cannot be made."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = [ipaddress.ip_address(a.partition("%")[0]) for a in addresses]
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._sock.bind((0, GROUPS))

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def drain(self) -> None:
        """Read what was told. What it said is asked for again by ``states``, so nothing is lost when there was too much of it."""
        while True:
            try:
                self._sock.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError:
                continue  # ENOBUFS: some were lost, which is as good as one that was read

    def states(self) -> tuple[bool, ...]:
        """Per address: it is on an interface that is up and has a carrier."""
        links: dict[int, int] = {}
        where: dict[ipaddress.IPv4Address | ipaddress.IPv6Address, list[int]] = {}
        for kind, data in _dump(RTM_GETLINK):
            if kind == RTM_NEWLINK:
                _family, _type, index, flags, _change = _IFINFO.unpack_from(data)
                links[index] = flags
        for kind, data in _dump(RTM_GETADDR):
            if kind != RTM_NEWADDR:
                continue
            index = _IFADDR.unpack_from(data)[4]
            found = dict(_attributes(data[_IFADDR.size:]))
            raw = found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))
            if len(raw) in (4, 16):
                where.setdefault(ipaddress.ip_address(raw), []).append(index)

        def works(flags: int) -> bool:
            return flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING

        loopback = any(works(f) for f in links.values() if f & IFF_LOOPBACK)
        return tuple(
            loopback if a.is_loopback else any(works(links.get(i, 0)) for i in where.get(a, ())) for a in self._addresses)


def _dump(request: int) -> Iterator[tuple[int, bytes]]:
    """(type, body) of the answers. The kernel fills them in while we read, so this never waits."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as sock:
        sock.send(_NLMSG.pack(_NLMSG.size + 4, request, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + bytes(4))
        while True:
            data = sock.recv(_BUFFER)
            at = 0
            while at + _NLMSG.size <= len(data):
                length, kind, _flags, _sequence, _port = _NLMSG.unpack_from(data, at)
                if kind in (NLMSG_DONE, NLMSG_ERROR) or length < _NLMSG.size:
                    return
                yield kind, data[at + _NLMSG.size:at + length]
                at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size:at + length]
        at += (length + 3) & ~3


def watch(addresses: Sequence[str]) -> LinkWatch | None:
    """None: this kernel or sandbox does not let us; then silence alone tells."""
    with contextlib.suppress(OSError):
        return LinkWatch(addresses)
    return None
