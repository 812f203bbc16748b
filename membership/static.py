# SPDX-License-Identifier: GPL-2.0-only
"""The engine for one node: its own order is the order, and nothing ever changes. Needs no network and no key."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque

from membership.api import Configuration, Engine, EngineContext, EngineEvent, Kind, Message, Order, Rotation
from membership.totem.limits import MESSAGE_MAX, QUEUE_MESSAGES_MAX, RING_SEQ_STEP
from membership.totem.ringseq import RingSeqFile
from vcs.errors import ConfigError, VcsError
from vcs.model import RingId


class StaticEngine(Engine):
    """One node, one configuration, which is regular and never ends."""

    def __init__(self, context: EngineContext) -> None:
        if [n.id for n in context.config.nodes] != [context.local.nodeid]:
            raise ConfigError([f"engine static serves exactly one node, {context.local.nodeid}; engine totem serves several"])
        self._context = context
        self._ring = RingId(0, context.local.nodeid)
        self._seq = 0
        self._waiting: deque[EngineEvent] = deque()
        self._delivering = False
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    async def start(self) -> None:
        file = RingSeqFile(os.path.join(self._context.state_dir, "ring_seq"))
        seq = file.load() + RING_SEQ_STEP
        file.store(seq)
        self._ring = RingId(seq, self._context.local.nodeid)
        self._running = True
        self._deliver(Configuration(Kind.REGULAR, self._ring, (self._context.local,)))
        self._rotate()

    async def leave(self) -> None:
        self._running = False
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def submit(self, payload: bytes, order: Order = Order.AGREED) -> None:
        if len(payload) > MESSAGE_MAX:
            raise VcsError(f"a message of {len(payload)} bytes is too large (at most {MESSAGE_MAX})")
        if len(self._waiting) >= QUEUE_MESSAGES_MAX:
            raise VcsError("the send queue is full")
        if self._running:
            self._seq += 1
            self._deliver(Message(self._context.local, self._ring, self._seq, payload))

    @property
    def max_message(self) -> int:
        return MESSAGE_MAX

    def status(self) -> dict[str, object]:
        return {"state": "operational", "ring": str(self._ring), "members": [self._context.local.nodeid], "delivered": self._seq}

    def _deliver(self, event: EngineEvent) -> None:
        """In order also when the sink submits from within."""
        self._waiting.append(event)
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._waiting:
                self._context.sink(self._waiting.popleft())
        finally:
            self._delivering = False

    def _rotate(self) -> None:
        """A ring of one proves itself at any time."""
        self._deliver(Rotation(self._ring, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))
        if self._running:
            hold = self._context.config.totem.hold_ms / 1000
            self._timer = asyncio.get_running_loop().call_later(hold, self._rotate)
