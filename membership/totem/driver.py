# SPDX-License-Identifier: GPL-2.0-only
"""The core on real sockets: one non-blocking UDP socket, one timer, one file. Everything else is in the core.

Effects are carried out in order and to the end: the ring sequence is on disk before what carries it is sent. All waiting datagrams
are read before a timer fires, so a process that ran late does not take its own lateness for others' silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import time
from collections import deque

from membership.api import Engine, EngineContext, Order
from membership.totem.aes import aes_gcm
from membership.totem.core import CoreConfig, Deliver, Effect, Note, Persist, Send
from membership.totem.engine import TotemCore
from membership.totem.limits import DATAGRAM_MAX, MESSAGE_MAX, Timing
from membership.totem.ringseq import RingSeqFile
from membership.totem.seal import Sealer
from vcs.errors import ConfigError, VcsError

RECEIVE_BUFFER = 4 << 20
"Bytes asked of the kernel for datagrams that wait; it may grant less."
DRAIN_MAX = 512
"Datagrams read in one go before the loop's other work gets its turn."

DRAIN_ROUNDS = 8
"Rounds of it before a timer fires all the same: a flood must not stop time."


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class TotemEngine(Engine):
    """The engine ``totem``."""

    def __init__(self, context: EngineContext) -> None:
        config = context.config
        own = config.node(context.local.nodeid)
        if own is None:
            raise ConfigError([f"node {context.local.nodeid} is not in the configuration"])
        self._context = context
        self._addresses = {
            n.id: (n.addresses[0], config.totem.port) for n in config.nodes if n.id != own.id
        }
        self._bind = (own.addresses[0], config.totem.port)
        self._file = RingSeqFile(os.path.join(context.state_dir, "ring_seq"))
        self._core: TotemCore | None = None
        self._sealer = Sealer(config.name, context.local, aes_gcm(config.key))
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._effects: deque[Effect] = deque()
        self._running = False
        self._closed = False
        self._send_errors = 0

    # --- the engine's interface ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = self._open_socket()
        stored = self._file.load()
        if self._file.problem:
            self._context.note("ring_seq_lost", {"problem": self._file.problem})
        config = self._context.config
        nodes = tuple(sorted(n.id for n in config.nodes))
        self._core = TotemCore(CoreConfig(self._context.local, nodes, Timing.of(config.totem), stored), self._sealer)
        try:
            self._run(self._core.start(_now()))
        except VcsError:
            self._close()
            raise
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._rearm()

    async def leave(self) -> None:
        if self._closed or self._core is None:
            self._closed = True
            return
        effects = self._core.leave(_now())
        self._run([e for e in effects if isinstance(e, Send)])
        self._close()

    def abort(self) -> None:
        """End without a word to anybody, as a killed process does; for tests."""
        self._close()

    def submit(self, payload: bytes, order: Order = Order.AGREED) -> None:
        if self._core is None or self._closed:
            raise VcsError("the engine is not running")
        self._run(self._core.submit(payload, order, _now()))
        self._rearm()

    @property
    def max_message(self) -> int:
        return MESSAGE_MAX

    def status(self) -> dict[str, object]:
        if self._core is None:
            return {"state": "stopped"}
        return {**self._core.status(), "send_errors": self._send_errors}

    # --- sockets and time ---------------------------------------------------------------------------------------------------

    def _open_socket(self) -> socket.socket:
        address, port = self._bind
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.bind(self._bind)
        except OSError as e:
            sock.close()
            raise VcsError(f"cannot bind UDP {address} port {port}: {e.strerror}",
                           "is another vcsd running, and is the address this machine's?") from e
        return sock

    def _readable(self) -> None:
        self._drain()
        self._rearm()

    def _drain(self) -> bool:
        """Hand over what waits. False: DRAIN_MAX were read and more may wait."""
        core, sock = self._core, self._socket
        if core is None or sock is None:
            return True
        for _ in range(DRAIN_MAX):
            try:
                data = sock.recv(DATAGRAM_MAX)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError:
                # An ICMP error of an earlier send, reported here: a hint at most, and the next datagram may still wait.
                continue
            self._run(core.datagram(data, _now()))
            if self._closed:
                return True
        return False

    def _fire(self) -> None:
        self._timer = None
        core = self._core
        if core is None or self._closed:
            return
        for _ in range(DRAIN_ROUNDS):
            if self._drain():
                break
        if not self._closed:
            self._run(core.tick(_now()))
            self._rearm()

    def _rearm(self) -> None:
        """One timer, moved only when it would fire too late: a deadline that moves away costs one early wake-up."""
        core, loop = self._core, self._loop
        if core is None or loop is None or self._closed:
            return
        at = core.deadline()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_later(max(0.0, (at - _now()) / 1e9), self._fire)

    # --- effects ------------------------------------------------------------------------------------------------------------

    def _run(self, effects: list[Effect]) -> None:
        """Carry out effects. The sink may submit from within: what that causes waits for its turn."""
        self._effects.extend(effects)
        if self._running:
            return
        self._running = True
        try:
            while self._effects:
                self._execute(self._effects.popleft())
        except BaseException:
            # The ring sequence could not be stored, or the sink failed: what follows in the queue must not be done.
            self._effects.clear()
            raise
        finally:
            self._running = False

    def _execute(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(effect)
            case Deliver():
                self._context.sink(effect.event)
            case Persist():
                self._store(effect.ring_seq)
            case Note():
                self._context.note(effect.name, effect.fields)

    def _send(self, effect: Send) -> None:
        sock = self._socket
        if sock is None:
            return
        for nodeid in effect.to:
            try:
                sock.sendto(effect.data, self._addresses[nodeid])
            except OSError:
                # Full buffer, no route, port unreachable: the same as a lost datagram, which the protocol repairs.
                self._send_errors += 1

    def _store(self, ring_seq: int) -> None:
        try:
            self._file.store(ring_seq)
        except VcsError as e:
            self._context.note("ring_seq_not_stored", {"problem": str(e)})
            self._close()
            raise

    def _close(self) -> None:
        self._closed = True
        self._effects.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            if self._loop is not None:
                with contextlib.suppress(ValueError):
                    self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
