# SPDX-License-Identifier: GPL-2.0-only
"""Application messages to frames and back: several small ones in one frame, large ones in fragments.

A message whose fragments were not all sent when the configuration ended is sent again, whole, in the next one; receivers forget
incomplete ones at the same point. So no message is ever put together from pieces of two configurations, and none is lost or doubled:
who has not sent the last fragment cannot have been delivered anywhere.
"""

from __future__ import annotations

from collections import deque

from membership.api import Order
from membership.totem.limits import MESSAGE_MAX, PAYLOAD_MAX, QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX
from membership.totem.wire import FRAGMENT_OVERHEAD, WHOLE_OVERHEAD, Part
from vcs.errors import VcsError


class SendQueue:
    """Messages that wait for the token."""

    __slots__ = ("_bytes", "_messages", "_offset")

    def __init__(self) -> None:
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._bytes = 0
        self._offset = 0
        "Bytes of the first message that are already sent."

    def put(self, payload: bytes, order: Order) -> None:
        """Raises VcsError when the message is too large or the queue is full."""
        if len(payload) > MESSAGE_MAX:
            raise VcsError(f"a message of {len(payload)} bytes is too large (at most {MESSAGE_MAX})")
        if len(self._messages) >= QUEUE_MESSAGES_MAX or self._bytes + len(payload) > QUEUE_BYTES_MAX:
            raise VcsError(f"the send queue is full ({len(self._messages)} messages, {self._bytes} bytes)")
        self._messages.append((payload, order is Order.SAFE))
        self._bytes += len(payload)

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def backlog(self) -> int:
        """Frames that wait, about."""
        if not self._messages:
            return 0
        return (self._bytes - self._offset + WHOLE_OVERHEAD * len(self._messages)) // PAYLOAD_MAX + 1

    def restart(self) -> None:
        """The configuration has ended: a message that was sent in part is sent again from its start."""
        self._offset = 0

    def next_frame(self) -> tuple[tuple[Part, ...], bool] | None:
        """Parts for one frame and whether they are safe; None: nothing waits."""
        messages = self._messages
        if not messages:
            return None
        parts: list[Part] = []
        room = PAYLOAD_MAX
        safe = messages[0][1]
        while messages and messages[0][1] == safe:
            payload = messages[0][0]
            total = len(payload)
            offset = self._offset
            if offset == 0 and total + WHOLE_OVERHEAD <= room:
                parts.append((total, 0, payload))
                room -= total + WHOLE_OVERHEAD
            elif offset or not parts:
                take = min(total - offset, room - FRAGMENT_OVERHEAD)
                parts.append((total, offset, payload[offset:offset + take]))
                room -= take + FRAGMENT_OVERHEAD
                if offset + take < total:
                    self._offset = offset + take
                    break
            else:
                break
            messages.popleft()
            self._bytes -= total
            self._offset = 0
        return tuple(parts), safe


class Reassembly:
    """Fragments of each origin until a message is whole."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial: dict[int, tuple[int, bytearray]] = {}

    def feed(self, origin: int, part: Part) -> bytes | None:
        """The message that ``part`` completes, or None. A fragment that does not continue what is there drops it."""
        total, offset, data = part
        if len(data) == total:
            self._partial.pop(origin, None)
            return data
        if offset == 0:
            self._partial[origin] = (total, bytearray(data))
            return None
        held = self._partial.get(origin)
        if held is None or held[0] != total or len(held[1]) != offset:
            self._partial.pop(origin, None)
            return None
        held[1].extend(data)
        if len(held[1]) < total:
            return None
        del self._partial[origin]
        return bytes(held[1])

    def clear(self) -> None:
        self._partial.clear()
