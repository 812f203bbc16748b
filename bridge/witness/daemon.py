# SPDX-License-Identifier: GPL-2.0-only
"""The witness's process: a socket around the arbiter. It keeps nothing, and needs no right but to bind its port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from bridge.witness import sockets
from bridge.witness.arbiter import Arbiter
from bridge.witness.wire import FRAME_MAX, NODEID, decode_ask, encode_answer
from membership.api import Processor
from membership.totem.seal import FrameError
from vcs.component import sd_notify
from vcs.config.load import load
from vcs.config.model import ClusterConfig
from vcs.errors import ConfigError, RemoteError, VcsError
from vcs.events import boottime_ns

DRAIN_MAX = 64
"Datagrams read in one go."
logger = logging.getLogger("vcs-witness")


class WitnessServer:
    """Answers from construction until ``close``. Raises VcsError when it cannot have its address."""

    def __init__(self, config: ClusterConfig) -> None:
        held = config.quorum.witness
        if held is None:
            raise ConfigError([f"cluster {config.name} has no witness; write [quorum.witness] with the address of this machine into "
                               "cluster.toml, on all nodes and here"])
        incarnation = int.from_bytes(os.urandom(8), "little") or 1
        self._sealer = sockets.sealer(config, Processor(NODEID, incarnation, incarnation))
        self._nodes = {n.id for n in config.nodes}
        self._config = config
        self.arbiter = Arbiter(held.timeout_ms, incarnation, boottime_ns())
        self._dropped: Counter[str] = Counter()
        self._holder = ""
        self._sock = sockets.bound(held)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock, self._readable)

    def counters(self) -> dict[str, int]:
        return dict(self.arbiter.counters + self._dropped)

    def reconfigure(self, config: ClusterConfig) -> None:
        """Other keys, as they are rotated. Raises VcsError with nothing changed."""
        if (config.name, config.quorum, config.nodes) != (self._config.name, self._config.quorum, self._config.nodes):
            raise VcsError("only keys can change while a witness runs", "restart it: it then grants nothing for timeout_ms")
        self._sealer.rekey(*sockets.suites(config))

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _readable(self) -> None:
        for _ in range(DRAIN_MAX):
            try:
                frame, where = self._sock.recvfrom(FRAME_MAX)
            except BlockingIOError:
                return
            except OSError:  # an ICMP message about an earlier answer
                continue
            reply = self._frame(frame)
            if reply is not None:
                with contextlib.suppress(OSError):  # it asks again
                    self._sock.sendto(reply, where)

    def _frame(self, frame: bytes) -> bytes | None:
        try:
            sender, counter, body = self._sealer.open(frame)
            ask = decode_ask(body)
        except FrameError as error:
            self._dropped[error.reason] += 1
            return None
        except RemoteError:
            self._dropped["garbage"] += 1
            return None
        if sender.nodeid not in self._nodes or not self._nodes.issuperset((*ask.members, *ask.others)):
            self._dropped["unknown node"] += 1
            return None
        answer = self.arbiter.ask(sender, counter, ask, boottime_ns(), time.time_ns() // 1_000_000)
        self._note()
        return None if answer is None else self._sealer.seal(encode_answer(answer))

    def _note(self) -> None:
        """Tell of a grant that went to somebody else."""
        held = self.arbiter.holder
        now = f"{held.ring}: nodes {', '.join(map(str, sorted(held.members)))}" if held is not None else ""
        if now != self._holder:
            logger.info("%s", f"granted to ring {now}" if now else f"ring {self._holder} has no grant any more")
            self._holder = now


async def run(path: str) -> None:
    """Until SIGTERM or SIGINT. Raises VcsError if it cannot start."""
    config = load(path)
    server = WitnessServer(replace(config, nodes=tuple(replace(n, addresses=()) for n in config.nodes)))
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def hang_up() -> None:
        try:
            again = load(path)
            server.reconfigure(replace(again, nodes=tuple(replace(n, addresses=()) for n in again.nodes)))
        except VcsError as error:
            logger.error("SIGHUP: %s; the former keys stay in force", error)
        else:
            logger.info("SIGHUP: the keys of %s were read again", Path(path).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    held = config.quorum.witness
    assert held is not None
    logger.info("witness of cluster %s at %s port %d; grants nothing for %g s", config.name, held.address, held.port,
                server.arbiter.length_ns / 1e9)
    sd_notify("READY=1")
    try:
        await stop.wait()
    finally:
        sd_notify("STOPPING=1")
        logger.info("stopped; %s", ", ".join(f"{k} {v}" for k, v in sorted(server.counters().items())) or "nobody has asked")
        server.close()
