# SPDX-License-Identifier: GPL-2.0-only
"""Application messages to frames and back: many small ones in one frame, large ones in fragments.

A message whose fragments were not all sent when the configuration ended is sent again, whole, in the next one; receivers forget
incomplete ones at the same point. So no message is ever put together from pieces of two configurations, and none is lost or doubled:
who has not sent the last fragment cannot have been delivered anywhere.
"""

from __future__ import annotations

from collections import deque

from membership.api import Order
from membership.totem.flow import units
from membership.totem.frames import FRAGMENT_OVERHEAD, Content, Fragment, content_size
from membership.totem.limits import MESSAGE_MAX, MESSAGES_PER_FRAME, QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX
from vcs.errors import VcsError

_PER_MESSAGE = content_size(1, 0) - content_size(0, 0)


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
        size = len(payload)
        if size > MESSAGE_MAX:
            raise VcsError(f"a message of {size} bytes is too large (at most {MESSAGE_MAX})")
        if len(self._messages) >= QUEUE_MESSAGES_MAX or self._bytes + size > QUEUE_BYTES_MAX:
            raise VcsError(f"the send queue is full ({len(self._messages)} messages, {self._bytes} bytes)")
        self._messages.append((payload, order is Order.SAFE))
        self._bytes += size

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def backlog(self) -> int:
        """Units that wait, about."""
        if not self._messages:
            return 0
        return units(self._bytes - self._offset + _PER_MESSAGE * len(self._messages))

    def restart(self) -> None:
        """The configuration has ended: a message that was sent in part is sent again from its start."""
        self._offset = 0

    def next_frame(self, room: int) -> tuple[Content, bool] | None:
        """Content of at most ``room`` bytes (PAYLOAD_MIN or more) for one frame and whether it is safe; None: nothing waits."""
        messages = self._messages
        if not messages:
            return None
        payload, safe = messages[0]
        if self._offset or content_size(1, len(payload)) > room:
            return self._fragment(payload, room), safe
        content: list[bytes] = []
        room -= content_size(0, 0)
        taken = 0
        while messages and len(content) < MESSAGES_PER_FRAME:
            payload, order = messages[0]
            size = len(payload)
            room -= size + _PER_MESSAGE
            if room < 0 or order != safe:
                break
            content.append(payload)
            taken += size
            messages.popleft()
        self._bytes -= taken
        return content, safe

    def _fragment(self, payload: bytes, room: int) -> Fragment:
        offset, total = self._offset, len(payload)
        end = min(total, offset + room - FRAGMENT_OVERHEAD)
        if end == total:
            self._messages.popleft()
            self._bytes -= total
            self._offset = 0
        else:
            self._offset = end
        return Fragment(total, offset, payload[offset:end])


class Reassembly:
    """Fragments of each origin until a message is whole."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial: dict[int, tuple[int, bytearray]] = {}

    def feed(self, origin: int, part: Fragment) -> bytes | None:
        """The message that ``part`` completes, or None. A fragment that does not continue what is there drops it."""
        total, offset, data = part
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

    def drop(self, origin: int) -> None:
        """A whole message of ``origin``: what was incomplete before it stays so."""
        self._partial.pop(origin, None)

    def clear(self) -> None:
        self._partial.clear()
