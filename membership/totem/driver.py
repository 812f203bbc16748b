# SPDX-License-Identifier: GPL-2.0-only
"""The core on real sockets: a socket per link, one timer, one file. Everything else is in the core.

Effects are carried out in order and to the end: the ring sequence is on disk before what carries it is sent. All waiting frames are
read before a timer fires, so a process that ran late does not take its own lateness for others' silence. The loop never waits for
the disk: sequences are reserved ahead, and should the reserve be used up, the engine reads and sends nothing until the disk has
answered, while the rest of the process goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from membership.api import Engine, EngineContext, Order
from membership.totem import flow, memory
from membership.totem.aes import AesGcm
from membership.totem.core import CoreConfig, Deliver, DeliverMessages, Effect, Note, Persist, Send
from membership.totem.engine import TotemCore
from membership.totem.guardian import Guardian, Target
from membership.totem.history import Names, Times
from membership.totem.limits import MESSAGE_MAX, RING_SEQ_RESERVE, Timing
from membership.totem.linkset import LinkSet
from membership.totem.ringseq import RingSeqFile
from membership.totem.seal import Sealer
from vcs.config.model import ClusterConfig
from vcs.errors import ConfigError, VcsError
from vcs.report import RingReport

DRAIN_ROUNDS = 8
"Rounds of reading before a timer fires all the same: a flood must not stop time."


def keys(config: ClusterConfig) -> list[AesGcm]:
    """The key to send under first. Raises VcsError."""
    return [AesGcm(key) for key in (config.key, *config.more_keys)]


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _deliveries_first(effect: Effect) -> bool:
    return not isinstance(effect, DeliverMessages)


class TotemEngine(Engine):
    """The engine ``totem``."""

    def __init__(self, context: EngineContext) -> None:
        config = context.config
        own = config.node(context.local.nodeid)
        if own is None:
            raise ConfigError([f"node {context.local.nodeid} is not in the configuration"])
        self._context = context
        self._own = own
        self._config = config
        self._links: LinkSet | None = None
        self._file = RingSeqFile(os.path.join(context.state_dir, "ring_seq"))
        self._disk = ThreadPoolExecutor(1, "ring-seq")
        self._reserved = 0
        "Ring sequences up to this one are on the disk."
        self._reserving = False
        self._storing: asyncio.Task[None] | None = None
        "Effects wait for the disk."
        self._core: TotemCore | None = None
        self._guardian: Guardian | None = None
        self._sealer = Sealer(config.name, context.local, *keys(config))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._effects: deque[Effect] = deque()
        self._running = False
        self._starting = True
        self._closed = False

    # --- the engine's interface ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        memory.keep()
        stored = await self._loop.run_in_executor(self._disk, self._file.load)
        if self._file.problem:
            self._context.note("ring_seq_lost", {"problem": self._file.problem})
        config = self._config
        nodes = tuple(sorted(n.id for n in config.nodes))
        links = len(self._own.addresses)
        core = self._core = TotemCore(
            CoreConfig(self._context.local, nodes, Timing.of(config.totem), stored, links, bool(config.totem.multicast)), self._sealer)
        try:
            self._links = LinkSet(self._own, config, core.core.links, self._readable, self._frame, self._hinted)
            core.core.window = flow.window(min(link.buffer_bytes for link in self._links.links))
            self._call(core.start(_now()))
            if self._storing is not None:
                await self._storing
        except VcsError:
            self._close()
            raise
        self._starting = False
        self._guardian = Guardian(self._context.note)
        self._inform_guardian()
        self._links.listen(True)
        self._rearm()

    async def leave(self) -> None:
        if self._storing is not None:
            with contextlib.suppress(VcsError):
                await self._storing
        if self._closed or self._core is None:
            self._close()
            return
        effects = self._core.leave(_now())
        self._call([e for e in effects if isinstance(e, Send)])
        self._close()

    def abort(self) -> None:
        """End without a word to anybody, as a killed process does; for tests."""
        self._close()

    def submit(self, payload: bytes, order: Order = Order.AGREED) -> None:
        if self._core is None or self._closed:
            raise VcsError("the engine is not running")
        effects = self._core.submit(payload, order, _now())
        if len(effects) > 1:
            # A ring at rest takes it at once: who waits for it here need not wait until every peer was sent to.
            effects.sort(key=_deliveries_first)
        self._call(effects)
        self._rearm()

    def reconfigure(self, config: ClusterConfig) -> None:
        """Other keys, peers, addresses of peers, timing. Each node in turn; docs/man/cluster.toml.5.md tells in which order."""
        core, links = self._core, self._links
        if core is None or links is None:
            raise VcsError("the engine is not running")
        own = config.node(self._own.id)
        fixed = [(own.addresses if own else (), self._own.addresses, "this node's own addresses"),
                 (config.totem.port, self._config.totem.port, "the port"), (config.name, self._config.name, "the cluster's name"),
                 (config.totem.multicast, self._config.totem.multicast, "multicast groups")]
        for new, old, what in fixed:
            if new != old:
                raise VcsError(f"{what} cannot change while the engine runs", "restart vcsd on this node")
        suites = keys(config)
        nodes = tuple(sorted(n.id for n in config.nodes))
        links.reconfigure(config)
        self._sealer.rekey(*suites)
        core.core.timing = Timing.of(config.totem)
        self._config = config
        self._call(core.reconfigure(nodes, _now()))
        links.measure()
        self._inform_guardian()
        self._rearm()

    @property
    def max_message(self) -> int:
        return MESSAGE_MAX

    def status(self) -> dict[str, object]:
        if self._core is None:
            return {"state": "stopped"}
        return {**self._core.status(), "io": self._links.status() if self._links is not None else {}}

    def ring_report(self, names: Names, times: Times) -> RingReport:
        if self._core is None:
            return super().ring_report(names, times)
        return self._core.ring_report(_now(), names, times, self._links.status() if self._links is not None else {})

    # --- frames -------------------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        core = self._core
        if self._links is not None and self._links.drain() and core is not None and self._storing is None:
            # What the core put off until everything was read is due now, and need not wait for the loop's timer.
            at = core.deadline()
            if at is not None and at <= (now := _now()):
                self._call(core.tick(now))
        self._rearm()

    def _frame(self, frame: bytes | memoryview, link: int) -> None:
        core = self._core
        if core is not None and not self._closed:
            self._call(core.datagram(frame, _now(), link))

    def _hinted(self, nodeid: int, what: str, link: int, value: int) -> None:
        core = self._core
        if core is not None and not self._closed:
            self._call(core.hint(nodeid, what, link, _now(), value))
            self._rearm()

    def _inform_guardian(self) -> None:
        links, core = self._links, self._core
        if self._guardian is not None and core is not None and links is not None:
            targets: list[Target] = [(i, address) for i, peers in enumerate(links.addresses) for address in peers.values()]
            self._guardian.tell(core.last_gasp(), links.speakers(), targets)

    # --- time ---------------------------------------------------------------------------------------------------------------

    def _fire(self) -> None:
        self._timer = None
        core = self._core
        if core is None or self._closed or self._storing is not None:
            return
        for _ in range(DRAIN_ROUNDS):
            if self._links is None or self._links.drain():
                break
        if not self._closed:
            self._call(core.tick(_now()))
            self._rearm()

    def _rearm(self) -> None:
        """One timer, moved only when it would fire too late: a deadline that moves away costs one early wake-up."""
        core, loop = self._core, self._loop
        if core is None or loop is None or self._closed or self._storing is not None:
            return
        at = core.deadline()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_later(max(0.0, (at - _now()) / 1e9), self._fire)

    # --- effects ------------------------------------------------------------------------------------------------------------

    def _call(self, effects: list[Effect]) -> None:
        """Carry out effects. The sink may submit from within: what that causes waits for its turn."""
        self._effects.extend(effects)
        if self._running:
            return
        self._running = True
        try:
            while self._effects and self._storing is None:
                self._execute(self._effects.popleft())
        except BaseException:
            # The sink failed: what follows in the queue must not be done.
            self._effects.clear()
            raise
        finally:
            self._running = False

    def _execute(self, effect: Effect) -> None:
        match effect:
            case Send():
                if self._links is not None:
                    self._links.send(effect)
            case Deliver():
                self._context.sink(effect.event)
            case DeliverMessages():
                for message in effect.messages:
                    if not self._closed:
                        self._context.sink(message)
            case Persist():
                self._persist(effect.ring_seq)
            case Note():
                self._context.note(effect.name, effect.fields)

    # --- the disk -----------------------------------------------------------------------------------------------------------

    def _persist(self, ring_seq: int) -> None:
        """Go on only when ``ring_seq`` is on the disk. It nearly always is, because ranges are reserved ahead."""
        assert self._loop is not None and self._links is not None
        if ring_seq > self._reserved:
            self._links.listen(False)
            self._storing = self._loop.create_task(self._store(ring_seq + RING_SEQ_RESERVE))
            self._storing.add_done_callback(self._stored)
        elif ring_seq > self._reserved - RING_SEQ_RESERVE // 2 and not self._reserving:
            self._reserving = True
            upto = self._reserved + RING_SEQ_RESERVE
            self._loop.run_in_executor(self._disk, self._file.store, upto).add_done_callback(lambda f: self._ahead(f, upto))

    def _ahead(self, stored: asyncio.Future[None], upto: int) -> None:
        self._reserving = False
        if stored.cancelled():
            return
        error = stored.exception()
        if error is None:
            self._reserved = max(self._reserved, upto)
        elif not self._closed:
            # Not yet serious: it is tried again with the next ring, and half of the reserve is left.
            self._context.note("ring_seq_not_reserved", {"problem": str(error)})

    async def _store(self, upto: int) -> None:
        """Effects wait meanwhile, in order. Raises VcsError if the disk refuses: the engine has ended then."""
        assert self._loop is not None
        try:
            await self._loop.run_in_executor(self._disk, self._file.store, upto)
        except VcsError as e:
            self._context.note("ring_seq_not_stored", {"problem": str(e)})
            self._close(gasp=True)
            raise
        finally:
            self._storing = None
        self._reserved = max(self._reserved, upto)
        if not self._closed and self._links is not None:
            self._links.listen(True)
            self._call([])
            self._rearm()

    def _stored(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._starting:
            raise error  # in a callback of the engine's: whoever owns the loop ends what depends on the engine

    def _close(self, gasp: bool = False) -> None:
        self._closed = True
        self._effects.clear()
        if self._guardian is not None:
            self._guardian.stand_down(gasp)
            self._guardian = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._links is not None:
            self._links.close()
            self._links = None
        self._disk.shutdown(wait=False)
