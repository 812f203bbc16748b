# SPDX-License-Identifier: GPL-2.0-only
"""The node's line to the witness: sends what the coordinator asks, feeds it what is answered. Decides nothing, waits for nothing."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable

from bridge.coordinator.api import AskWitness, WitnessAnswer
from bridge.witness import sockets
from bridge.witness.session import Session
from bridge.witness.wire import FRAME_MAX, NODEID, Ask, decode_answer, encode_ask
from membership.api import Processor
from membership.totem.seal import FrameError
from vcs.config.model import ClusterConfig
from vcs.errors import RemoteError, VcsError

DRAIN_MAX = 32
"Datagrams read in one go."


class WitnessClient:
    """Runs on one event loop. A network that is not there is no error: the next question tries again."""

    def __init__(self, config: ClusterConfig, local: Processor, answered: Callable[[WitnessAnswer], None]) -> None:
        assert config.quorum.witness is not None
        self._held = config.quorum.witness
        self._sealer = sockets.sealer(config, local)
        self._session = Session(local.engine, self._held.timeout_ms)
        self._answered = answered
        self._sock: socket.socket | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._counters: Counter[str] = Counter()

    def counters(self) -> dict[str, int]:
        """What was asked and answered, and what was dropped, by its reason."""
        return dict(self._session.counters + self._counters)

    def ask(self, what: AskWitness) -> None:
        if not self._closed:
            self._send(self._session.ask(what))

    def rekey(self, config: ClusterConfig) -> None:
        """Raises ConfigError with nothing changed."""
        self._sealer.rekey(*sockets.suites(config))

    def close(self) -> None:
        self._closed = True
        self._hang_up()

    def _send(self, ask: Ask) -> None:
        try:
            if self._sock is None:
                self._sock = sockets.connected(self._held)
                self._loop.add_reader(self._sock, self._readable)
            self._sock.send(self._sealer.seal(encode_ask(ask)))
        except BlockingIOError:
            self._counters["not sent"] += 1
        except (OSError, VcsError):  # no route, no interface, nobody there: a new socket takes the route that is there then
            self._counters["not sent"] += 1
            self._hang_up()

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _readable(self) -> None:
        for _ in range(DRAIN_MAX):
            if self._sock is None:
                return
            try:
                frame = self._sock.recv(FRAME_MAX)
            except BlockingIOError:
                return
            except OSError:  # an ICMP message about an earlier question
                self._counters["unreachable"] += 1
                return
            self._frame(frame)

    def _frame(self, frame: bytes) -> None:
        try:
            sender, _counter, body = self._sealer.open(frame)
            answer = decode_answer(body) if sender.nodeid == NODEID else None
        except FrameError as error:
            self._counters[error.reason] += 1
            return
        except RemoteError:
            answer = None
        if answer is None:
            self._counters["garbage"] += 1
            return
        heard = self._session.hear(answer)
        if isinstance(heard, Ask):
            self._send(heard)
        elif heard is not None:
            self._answered(heard)
