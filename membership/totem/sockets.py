# SPDX-License-Identifier: GPL-2.0-only
"""One link's sockets: whole frames in and out, whatever the path takes, and what the kernel says about peers.

A frame longer than the path's limit goes out as segments in one system call per peer (UDP_SEGMENT), and what the kernel has gathered
comes in by one call (UDP_GRO). IP never fragments (path MTU discovery is on), so a lost fragment cannot cost a whole datagram
without a trace, and a path that shrinks says so: EMSGSIZE, or an ICMP error in the error queue.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from membership.totem import segment
from membership.totem.limits import DATAGRAM_MAX
from vcs.errors import VcsError

BUFFER_BYTES = 8 << 20
"Asked of the kernel for datagrams that wait, each way; an unprivileged process may get less."
DRAIN_MAX = 128
"Datagrams (or trains of them) read in one go before the loop's other work gets its turn."
ERRORS_MAX = 64
"Entries of the error queue read in one go."

UDP_SEGMENT, UDP_GRO = 103, 104
SOL_UDP = 17
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32
IP_MTU_DISCOVER, IP_RECVERR, IP_MTU, IP_FREEBIND = 10, 11, 14, 15
IPV6_MTU_DISCOVER, IPV6_RECVERR, IPV6_MTU, IPV6_FREEBIND = 23, 25, 24, 78
PMTUDISC_DO = 2
MSG_ERRQUEUE = 0x2000
_EXTENDED_ERR = struct.Struct("=IBBBBII")  # errno, origin, type, code, pad, info, data
ORIGIN_ICMP = (2, 3)
"SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6"
_GSO_REFUSED = (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT)
_LATE_ERRORS = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EPROTO, errno.EACCES)
"Errors of an earlier datagram that the kernel reports at the next call."

Address = tuple[str, int] | tuple[str, int, int, int]
Handler = Callable[[bytes | memoryview, int], None]
"(frame, link); a memoryview is valid during the call only."


class Hint(NamedTuple):
    """What the kernel says about a peer. Anybody on the network can forge the ICMP message that it comes from."""

    address: str
    what: str
    "refused, unreachable or mtu."
    value: int = 0


def resolve(address: str, port: int) -> tuple[int, Address]:
    """(family, socket address) of a literal; never asks a name server. Raises VcsError."""
    try:
        # As bytes: a text would be made IDNA first, and the tables for that come from the disk, after memory was locked (SAFETY S20).
        found = socket.getaddrinfo(address.encode(), port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except OSError as e:
        raise VcsError(f"{address} cannot be used: {e}", "write an IPv4 or IPv6 address; its interface must exist") from None
    family, where = found[0][0], found[0][4]
    if len(where) == 4:
        # The scope is in the last number; beside a "%" in the text, each call would look the interface up again.
        where = (where[0].partition("%")[0], *where[1:])
    return family, where  # type: ignore[return-value]


def open_socket(address: str, port: int, may_be_absent: bool = False) -> socket.socket:
    """A bound UDP socket with everything set. Raises VcsError. ``may_be_absent``: also if no interface has the address now."""
    family, bound = resolve(address, port)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        for force, ordinary in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            if not _set(sock, socket.SOL_SOCKET, force, BUFFER_BYTES):
                _set(sock, socket.SOL_SOCKET, ordinary, BUFFER_BYTES)
        six = family == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
        if six:
            sock.setsockopt(level, socket.IPV6_V6ONLY, 1)
        _set(sock, level, IPV6_MTU_DISCOVER if six else IP_MTU_DISCOVER, PMTUDISC_DO)
        _set(sock, level, IPV6_RECVERR if six else IP_RECVERR, 1)
        if may_be_absent:
            _set(sock, level, IPV6_FREEBIND if six else IP_FREEBIND, 1)
        _set(sock, SOL_UDP, UDP_GRO, 1)
        sock.bind(bound)
    except OSError as e:
        sock.close()
        raise VcsError(f"cannot bind UDP {address} port {port}: {e.strerror}",
                       "is another vcsd running, and is the address this machine's?") from e
    return sock


def speaker(address: str) -> socket.socket:
    """A UDP socket to send from ``address``, from any port."""
    family, bound = resolve(address, 0)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with contextlib.suppress(OSError):  # an address that no interface has now: the route decides when it sends
        sock.bind(bound)
    return sock


def _set(sock: socket.socket, level: int, option: int, value: int | bytes) -> bool:
    """False: this kernel does not have or allow it, and there is a way without."""
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def interface_of(address: str) -> int:
    """Index of the interface that has this IPv6 address. Raises OSError."""
    wanted = socket.inet_pton(socket.AF_INET6, address.partition("%")[0]).hex()
    with open("/proc/net/if_inet6", encoding="ascii") as file:
        for line in file:
            found, index = line.split()[:2]
            if found == wanted:
                return int(index, 16)
    raise OSError(errno.EADDRNOTAVAIL, f"no interface has {address}")


def path_payload(address: Address, family: int) -> int:
    """The largest UDP payload that the kernel believes to fit the path to ``address``; 0: there is no route."""
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        six = family == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
        try:
            sock.setsockopt(level, IPV6_MTU_DISCOVER if six else IP_MTU_DISCOVER, PMTUDISC_DO)
            sock.connect(address)
            mtu = sock.getsockopt(level, IPV6_MTU if six else IP_MTU)
        except OSError:
            return 0
    return min(mtu, 65535 if not six else 65575) - (48 if six else 28)


class LinkSocket:
    """Link ``index``: this node's address on it."""

    def __init__(self, index: int, address: str, port: int, assembler: segment.Assembler, may_be_absent: bool = False) -> None:
        self.index = index
        self.address = address
        self.family, _bound = resolve(address, port)
        self.sock = open_socket(address, port, may_be_absent)
        self.readers = [self.sock]
        "Sockets that frames come in by, in the order in which they are drained."
        self.counters: Counter[str] = Counter()
        self.hints: list[Hint] = []
        "What the error queue told and nobody has fetched yet."
        self.group: Address | None = None
        "Where a frame for all goes by multicast."
        self._member: tuple[socket.socket, int, int, bytes] | None = None
        self._assembler = assembler
        self._buffer = bytearray(DATAGRAM_MAX + 1)
        self._view = memoryview(self._buffer)
        self._gso = True

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def buffer_bytes(self) -> int:
        """What the kernel granted for datagrams that wait, its own bookkeeping included."""
        return min(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for sock in self.readers)

    def close(self) -> None:
        for sock in self.readers:
            sock.close()

    def join(self, group: str, port: int) -> None:
        """Take part in a multicast group. Raises VcsError."""
        family, bound = resolve(group, port)
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if not _set(sock, socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES):
                _set(sock, socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            _set(sock, SOL_UDP, UDP_GRO, 1)
            sock.bind(bound)
            if family == socket.AF_INET:
                own = socket.inet_aton(self.address)
                self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
                self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
                self._member = sock, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + own
            else:
                index = interface_of(self.address)
                self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
                self._member = (sock, socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
                                socket.inet_pton(family, group.partition("%")[0]) + index.to_bytes(4, sys.byteorder))
            sock.setsockopt(*self._member[1:])
        except OSError as e:
            sock.close()
            raise VcsError(f"cannot join the multicast group {group} at {self.address}: {e.strerror}",
                           "is the interface up, and does it do multicast? Without [totem] multicast none is needed") from e
        self.group = bound
        # Drained first: what was sent to all before the token was passed on should be here before the token.
        self.readers.insert(0, sock)

    def rejoin(self) -> None:
        """The interface was away: the kernel may have forgotten that we are in the group."""
        if self._member is not None:
            _set(self._member[0], *self._member[1:3], self._member[3])

    # --- out ----------------------------------------------------------------------------------------------------------------

    def send(self, batches: list[segment.Batch], address: Address) -> bool:
        """Send one frame. False: a datagram was too large for the path; the caller asks for the path's size and cuts again. What
        is lost otherwise (full buffer, no route) is the same as a datagram lost on the way, which the protocol repairs."""
        for data, size in batches:
            if size >= len(data) or not self._gso:
                sent = all(self._send_one(data[i:i + size], address) for i in range(0, len(data), size)) if size < len(data) \
                    else self._send_one(data, address)
            else:
                sent = self._send_train(data, size, address)
            if not sent:
                return False
        return True

    def _send_train(self, data: bytes, size: int, address: Address) -> bool:
        try:
            self.sock.sendmsg([data], [(SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))], 0, address)
        except BlockingIOError:
            self.counters["send_buffer_full"] += 1
        except OSError as e:
            if e.errno == errno.EMSGSIZE:
                return False
            if e.errno in _GSO_REFUSED:
                # Kernels before 6.10 say EINVAL also when a segment is longer than the path's MTU: one datagram tells which it is.
                if not self._send_one(data[:size], address):
                    return False
                self._gso = False
                self.counters["gso_refused"] += 1
                return all(self._send_one(data[i:i + size], address) for i in range(size, len(data), size))
            return self._again(e, lambda: self.sock.sendmsg(
                [data], [(SOL_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))], 0, address))
        return True

    def _send_one(self, data: bytes, address: Address) -> bool:
        try:
            self.sock.sendto(data, address)
        except BlockingIOError:
            self.counters["send_buffer_full"] += 1
        except OSError as e:
            if e.errno == errno.EMSGSIZE:
                return False
            return self._again(e, lambda: self.sock.sendto(data, address))
        return True

    def _again(self, error: OSError, send: Callable[[], int]) -> bool:
        """The error may be that of an earlier datagram to another peer: read what there is, and try once more."""
        self.read_errors()
        if error.errno in _LATE_ERRORS:
            try:
                send()
                return True
            except OSError as e:
                error = e
        if error.errno == errno.EMSGSIZE:
            return False
        self.counters["send_errors"] += 1
        return True

    # --- in -----------------------------------------------------------------------------------------------------------------

    def receive(self, handle: Handler, known: frozenset[int]) -> bool:
        """Hand over the frames that wait. False: DRAIN_MAX reads were not enough."""
        done = True
        for sock in self.readers:
            done = self._receive(sock, handle, known) and done
        return done

    def _receive(self, sock: socket.socket, handle: Handler, known: frozenset[int]) -> bool:
        receive = sock.recvmsg_into
        buffers, view, link = [self._buffer], self._view, self.index
        got = 0
        while got < DRAIN_MAX:
            try:
                length, told, _flags, _address = receive(buffers, 64)
            except BlockingIOError:
                if not got:
                    # Woken and nothing to read: an error waits.
                    self.read_errors()
                return True
            except OSError:
                # The error of an earlier datagram, reported here; the next datagram may still wait.
                self.read_errors()
                got += 1
                continue
            got += 1
            size = length
            for level, kind, data in told:
                if level == SOL_UDP and kind == UDP_GRO:
                    size = int.from_bytes(data[:4], sys.byteorder)
            if size >= length:
                if length > 1 and view[0] == 0x56 and view[1] == 0x53:
                    frame = self._assembler.feed(view[:length], known)
                    if frame is not None:
                        handle(frame, link)
                else:
                    handle(view[:length], link)
            else:
                self._train(view[:length], size, handle, known)
            if sock.fileno() < 0:
                return True  # closed from within
        return False

    def _train(self, data: memoryview, size: int, handle: Handler, known: frozenset[int]) -> None:
        """Several datagrams of ``size`` bytes each, the last one perhaps shorter."""
        if size > segment.SIZE and data[:2] == segment.MAGIC_BYTES:
            frame = segment.whole_train(data, size)
            if frame is not None:
                handle(frame, self.index)
                return
        # Not one frame in order. What is handed over may reuse nothing of the buffer: a handler may send, but never receives.
        for at in range(0, len(data), size):
            piece = data[at:at + size]
            if piece[:2] == segment.MAGIC_BYTES:
                whole = self._assembler.feed(piece, known)
                if whole is not None:
                    handle(whole, self.index)
            else:
                handle(piece, self.index)

    # --- errors -------------------------------------------------------------------------------------------------------------

    def read_errors(self) -> None:
        """Turn the error queue into hints."""
        for _ in range(ERRORS_MAX):
            try:
                _data, told, _flags, address = self.sock.recvmsg(1, 512, MSG_ERRQUEUE)
            except OSError:
                return
            for _level, kind, data in told:
                if kind in (IP_RECVERR, IPV6_RECVERR) and len(data) >= _EXTENDED_ERR.size:
                    code, origin, _type, _code, _pad, info, _data2 = _EXTENDED_ERR.unpack_from(data)
                    if origin in ORIGIN_ICMP and address:
                        self._hint(address[0], code, info)

    def _hint(self, address: str, code: int, info: int) -> None:
        if code == errno.EMSGSIZE:
            what, value = "mtu", info - (48 if self.family == socket.AF_INET6 else 28)
        else:
            what, value = "refused" if code == errno.ECONNREFUSED else "unreachable", 0
        self.counters[f"icmp_{what}"] += 1
        if len(self.hints) < ERRORS_MAX:
            self.hints.append(Hint(address.partition("%")[0], what, value))
