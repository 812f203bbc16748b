# SPDX-License-Identifier: GPL-2.0-only
"""Netlink sockets: requests and their answers as bytes, without a library.

The calls block for as long as the kernel takes (no command of the family waits for anybody, KERNEL-API rule 5), so
they may be made from inside an event loop; a library with a loop of its own could not. Encoding and decoding of
attributes is vcs/netlink.py's; here are only the message headers, the errors and the multicast socket.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from vcs.errors import SwitchError

NETLINK_GENERIC = 16
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSGERR_ATTR_MSG = 1
NLMSGERR_ATTR_OFFS = 2
NLMSGERR_ATTR_MISS_TYPE = 5
NLA_TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")
"nlmsghdr: length, type, flags, sequence, portid."
GENL_HEADER_LEN = 4
ATTRIBUTE = struct.Struct("=HH")
BUFFER_BYTES = 1 << 18
"More than the largest answer (one group with twice 1,024 members is about 100 KB)."
HINT_BUFFER_BYTES = 1 << 20
"Receive buffer asked for on the hint socket; the kernel may give less (net.core.rmem_max)."
DUMP_TRIES = 20
"How often a dump is begun again because something changed under it."
HINT_READS = 4096
"Messages read in one call: a storm must not hold the caller's event loop."

AttributeName = Callable[[int, int], str]
"(type of the attribute, type of the nest it stands in or 0) -> name for people."


class DumpInterrupted(Exception):
    """The state changed while it was dumped: the parts do not belong together."""


class Overrun(Exception):
    """The kernel dropped messages that did not fit into the receive buffer."""


def align(length: int) -> int:
    return (length + 3) & ~3


def messages(data: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """(type, flags, sequence, whole message with its header) of each message in a datagram.

    Raises SwitchError EPROTO when the lengths do not add up."""
    offset = 0
    while offset < len(data):
        if len(data) - offset < HEADER.size:
            raise SwitchError(errno.EPROTO, f"netlink message cut off after {len(data) - offset} bytes")
        length, kind, flags, seq, _ = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            raise SwitchError(errno.EPROTO, f"netlink message of {length} bytes in {len(data) - offset}")
        yield kind, flags, seq, data[offset : offset + length]
        offset += align(length)


def attributes(data: memoryview, offset: int = 0) -> Iterator[tuple[int, int, memoryview]]:
    """(offset in ``data``, type without flags, payload) of each attribute from ``offset`` on; stops at the first
    one that does not fit."""
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size or offset + length > len(data):
            return
        yield offset, kind & NLA_TYPE_MASK, data[offset + ATTRIBUTE.size : offset + length]
        offset += align(length)


def name_at(request: memoryview, at: int, name: AttributeName) -> str:
    """Name of the attribute of ``request`` that the byte ``at`` belongs to, the innermost one; empty if none."""
    found = ""
    for offset, kind, payload in attributes(request, HEADER.size + GENL_HEADER_LEN):
        if offset <= at < offset + ATTRIBUTE.size + len(payload):
            found = name(kind, 0)
            inner = at - offset - ATTRIBUTE.size
            for inner_offset, inner_kind, inner_payload in attributes(payload):
                if inner >= 0 and inner_offset <= inner < inner_offset + ATTRIBUTE.size + len(inner_payload):
                    found = name(inner_kind, kind) or found
    return found


def error_of(code: int, tlvs: memoryview, request: memoryview, name: AttributeName) -> SwitchError:
    """The kernel's refusal with what its extended acknowledgement says."""
    text, attribute = "", ""
    for _, kind, payload in attributes(tlvs):
        if kind == NLMSGERR_ATTR_MSG:
            text = bytes(payload).split(b"\0", 1)[0].decode("utf-8", "replace")
        elif kind == NLMSGERR_ATTR_OFFS and len(payload) == 4:
            attribute = name_at(request, struct.unpack("=I", payload)[0], name)
        elif kind == NLMSGERR_ATTR_MISS_TYPE and len(payload) == 4:
            attribute = name(struct.unpack("=I", payload)[0], 0)
            text = text or "attribute missing"
    text = text or os.strerror(code)
    return SwitchError(code, f"{text} ({attribute})" if attribute else text, attribute)


def decode_error(message: memoryview, flags: int, request: memoryview, name: AttributeName) -> SwitchError | None:
    """What an NLMSG_ERROR says; None when it is an acknowledgement."""
    if len(message) < HEADER.size * 2 + 4:
        return SwitchError(errno.EPROTO, f"netlink error message of {len(message)} bytes")
    (code,) = struct.unpack_from("=i", message, HEADER.size)
    if code == 0:
        return None
    tlvs = message[len(message) :]
    if flags & NLM_F_ACK_TLVS:
        (echoed,) = struct.unpack_from("=I", message, HEADER.size + 4)
        skip = HEADER.size + 4 + (HEADER.size if flags & NLM_F_CAPPED else align(echoed))
        tlvs = message[skip:]
    return error_of(-code, tlvs, request, name)


def decode_done(message: memoryview, flags: int, request: memoryview, name: AttributeName) -> SwitchError | None:
    """What an NLMSG_DONE says: a dump can fail at its end."""
    if len(message) < HEADER.size + 4:
        return None
    (code,) = struct.unpack_from("=i", message, HEADER.size)
    if code >= 0:
        return None
    tlvs = message[HEADER.size + 4 :] if flags & NLM_F_ACK_TLVS else message[len(message) :]
    return error_of(-code, tlvs, request, name)


class RequestSocket:
    """Request and answer, one at a time (calls from several threads queue)."""

    def __init__(self, timeout_s: float) -> None:
        self._lock = threading.Lock()
        self._seq = 0
        self._buffer = bytearray(BUFFER_BYTES)
        self._sock = open_socket()
        self._sock.settimeout(timeout_s)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def dump(self, kind: int, body: bytes, name: AttributeName) -> list[memoryview]:
        """Every message of a dump; begins again when the state changed under it."""
        for _ in range(DUMP_TRIES):
            try:
                return self.request(kind, NLM_F_DUMP, body, name)
            except (DumpInterrupted, Overrun):
                continue
        raise SwitchError(errno.EBUSY, f"the switch changed under each of {DUMP_TRIES} reads", "")

    def request(self, kind: int, flags: int, body: bytes, name: AttributeName) -> list[memoryview]:
        """Send ``body`` (generic netlink header and attributes) and collect the answers, headers included.

        Raises SwitchError: the kernel's refusal; ETIMEDOUT; EPROTO for an answer that makes no sense."""
        if self._sock.fileno() < 0:
            raise SwitchError(errno.EBADF, "the socket to the switch is closed")
        with self._lock:
            self._seq = self._seq + 1 & 0xFFFF_FFFF
            header = HEADER.pack(
                HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, self._seq, 0
            )
            request = memoryview(header + body)
            try:
                self._sock.send(request)
                return self._collect(request, name)
            except TimeoutError:
                raise SwitchError(errno.ETIMEDOUT, "the kernel did not answer in time") from None
            except OSError as e:
                if e.errno == errno.ENOBUFS:
                    raise Overrun from None
                raise SwitchError(e.errno or errno.EIO, f"netlink: {e.strerror}") from None

    def _collect(self, request: memoryview, name: AttributeName) -> list[memoryview]:
        """Answers up to the final one; what belongs to an earlier request that timed out is dropped by its number."""
        answers: list[memoryview] = []
        interrupted = False
        while True:
            size, _, msg_flags, _ = self._sock.recvmsg_into([self._buffer])
            if msg_flags & socket.MSG_TRUNC:
                raise SwitchError(errno.EMSGSIZE, f"the kernel's answer is larger than {BUFFER_BYTES} bytes")
            data = memoryview(bytes(memoryview(self._buffer)[:size]))
            for kind, flags, seq, message in messages(data):
                if seq != self._seq:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind not in (NLMSG_ERROR, NLMSG_DONE):
                    answers.append(message)
                    continue
                decode = decode_error if kind == NLMSG_ERROR else decode_done
                refusal = decode(message, flags, request, name)
                if refusal is not None:
                    raise refusal
                if interrupted:
                    raise DumpInterrupted
                return answers


class HintSocket:
    """Receives multicast, never waits."""

    def __init__(self, group: int, buffer_bytes: int = HINT_BUFFER_BYTES) -> None:
        self._sock = open_socket()
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def read(self) -> Iterator[memoryview]:
        """Whole messages that have arrived. Raises Overrun where the kernel dropped some: the next read() goes on."""
        for _ in range(HINT_READS):
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno == errno.ENOBUFS:
                    raise Overrun from None
                raise SwitchError(e.errno or errno.EIO, f"netlink: {e.strerror}") from None
            for kind, _, _, message in messages(memoryview(data)):
                if kind > NLMSG_DONE:
                    yield message


def open_socket() -> socket.socket:
    """A bound generic netlink socket, closed on exec (KERNEL-API rule 6: an inherited one keeps a session alive)."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_GENERIC)
    try:
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            sock.setsockopt(SOL_NETLINK, option, 1)
        sock.bind((0, 0))
    except OSError:
        sock.close()
        raise
    return sock
