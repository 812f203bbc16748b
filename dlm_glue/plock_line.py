# SPDX-License-Identifier: GPL-2.0-only
"""One lockspace's channel to its vcsd, and what waits to be said there."""

from __future__ import annotations

import select
from collections import deque

from vcs import batch
from vcs.channel import LENGTH, Channel

RETRY_S, RETRY_MAX_S = 0.01, 1.0
"Between attempts to open a channel."


class Line:
    __slots__ = ("channel", "delay", "fd", "name", "opening", "out", "retry_at", "room")

    def __init__(self, name: str) -> None:
        self.name = name
        self.channel: Channel | None = None
        self.fd = -1
        self.out: deque[bytes] = deque()
        self.opening = False
        self.retry_at = 0.0
        self.delay = RETRY_S
        self.room = True
        "vcsd took all that was sent."

    def push(self, channel: Channel, poll: select.poll) -> bool:
        """Say what waits. False: vcsd takes no more for now; poll tells when it does. Raises ChannelClosed."""
        room = channel.flush(0)
        while room and self.out:
            size = batch.HEAD
            while self.out and (size := size + len(self.out[0]) + LENGTH) <= batch.PACKET_MAX:
                channel.put(self.out.popleft())
            room = channel.flush(0)
        if room != self.room:
            self.room = room
            poll.modify(self.fd, select.POLLIN if room else select.POLLIN | select.POLLOUT)
        return room
