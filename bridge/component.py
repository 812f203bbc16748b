# SPDX-License-Identifier: GPL-2.0-only
"""One node of a cluster, running: engine, coordinator and switch wired together. Several may live in one process (tests do)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterable

from bridge.channel.groups import GroupChannels
from bridge.commands import Commands
from bridge.coordinator import explain
from bridge.coordinator.api import FenceAck, LeaveCluster, Notice
from bridge.coordinator.core import Coordinator
from bridge.coordinator.lease import UNARMED, announce
from bridge.coordinator.messages import Body
from bridge.coordinator.waits import Wait
from bridge.driver import Driver, Fencer
from bridge.fencing import Fencing
from bridge.restart import Announcement
from bridge.seat import CAP_RESET, give_back, take_seat
from bridge.storage import RecordFile, refuse_cluster_file_system
from bridge.switch import ClusterInfo, ProviderPort
from bridge.witness.client import WitnessClient
from membership.api import Engine, EngineContext, EngineEvent, Processor
from vcs.config.model import ClusterConfig
from vcs.errors import ConfigError, SwitchError, VcsError
from vcs.events import EventLog, boottime_ns
from vcs.model import Group, GroupState, RingId, View
from vcs.mounts import holders

LEAVE_TIMEOUT_S = 10.0
"A clean leave that nobody orders in this time is given up."

EngineFactory = Callable[[EngineContext], Engine]


class LeaveRefused(VcsError):
    """The node is in groups, so it cannot leave cleanly."""

    exit_code = 3


class Component:
    """``await start()``; then it runs until ``leave()``, ``stop()``, or until ``failed`` is set.

    ``failed`` is a future that never gets a result, only an exception: the coordinator's, the disk's, or SeatLost. Whoever waits
    for it calls ``stop()`` afterwards. The port is the component's from then on: stop() closes it, and the switch takes that as the
    provider's death unless the node had left.
    """

    def __init__(
        self,
        config: ClusterConfig,
        nodeid: int,
        switch: ProviderPort,
        *,
        engine: EngineFactory,
        handle: str,
        state_dir: str,
        log: EventLog,
        fencer: Fencer | None = None,
    ) -> None:
        self.config = config
        self.nodeid = nodeid
        self.handle = handle
        self.log = log
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = asyncio.Event()
        "Set when the node has left cleanly and nothing of it is in the switch any more."
        self._switch = switch
        self._factory = engine
        self._state_dir = state_dir
        self.fencing = Fencing(config, nodeid, state_dir, log, fencer)
        self._engine: Engine | None = None
        self._coordinator: Coordinator | None = None
        self._driver: Driver | None = None
        self._channels: GroupChannels | None = None
        self._witness: WitnessClient | None = None
        self.self_fence = UNARMED
        "What this node announces of its lease."
        self._session = 0
        self._incarnation = 0
        self.before_departure: Callable[[], Awaitable[None]] | None = None
        "Called in a clean leave when nothing is owed any more and the cluster is still in the switch: who uses it ends now."
        self.wait_sources: list[Callable[[], Iterable[Wait]]] = []
        "What else `vcs why` shows."
        self._commands = Commands()
        self._leave: asyncio.Future[None] | None = None
        self._departure: asyncio.Task[None] | None = None
        self._restart = Announcement()
        self._stopped = False

    # --- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Check everything, take the provider's seat, start the engine. Raises VcsError; then nothing is left running."""
        if self.config.node(self.nodeid) is None:
            raise ConfigError([f"node {self.nodeid} is not in the configuration of cluster {self.config.name}"])
        refuse_cluster_file_system(self._state_dir, "state folder")
        storage = RecordFile(self._state_dir)
        record = storage.load()
        await self.fencing.check()
        try:
            await self._start(storage, record)
        except BaseException:
            await self.stop()
            raise

    def reconfigure(self, config: ClusterConfig) -> None:
        """Take another configuration while running: the engine's part of it may differ. Raises VcsError with nothing changed."""
        if self._engine is None or self._stopped:
            raise VcsError("the bridge does not run", "start vcsd")
        if config.fixed() != self.config.fixed():
            raise VcsError("only keys, addresses and [totem] can change under a running cluster",
                           "for the rest, restart vcsd on one node after the other")
        self._engine.reconfigure(config)
        if self._witness is not None:
            self._witness.rekey(config)
        self.config = config
        self.log.note("reconfigured", keys=1 + len(config.more_keys))

    async def _start(self, storage: RecordFile, record: bytes | None) -> None:
        await self._take_seat()
        await self.fencing.join(self._incarnation)
        # The engine incarnation belongs to this process and to nothing older (SAFETY S1); 0 is no incarnation.
        local = Processor(self.nodeid, self._incarnation, int.from_bytes(os.urandom(8), "little") or 1)
        engine_dir = os.path.join(self._state_dir, "engine")
        os.makedirs(engine_dir, mode=0o700, exist_ok=True)
        self._engine = self._factory(EngineContext(self.config, local, engine_dir, self._sink, self._note_of_engine))
        self._coordinator = Coordinator(self.config, local, record, self._engine.max_message, self.self_fence)
        self._channels = GroupChannels(self._coordinator, self._engine.submit, self._note_of_engine)
        if self.config.quorum.witness is not None:
            self._witness = WitnessClient(self.config, local, lambda answer: self._driver.feed(answer) if self._driver else None)
        self._driver = Driver(
            self.config,
            self._coordinator,
            self._switch,
            seat=(self.handle, self._session),
            storage=storage,
            fencer=self.fencing.fencer,
            log=self.log,
            on_left=self._on_left,
            on_failed=self._on_failed,
            on_notice=self._on_notice,
            on_restart=self._restart.ready,
            channels=self._channels,
            witness=self._witness,
        )
        await self._driver.start(self._engine)
        self.fencing.begin()
        self.log.note(
            "bridge_started",
            nodeid=self.nodeid,
            handle=self.handle,
            incarnation=f"{local.boot:x}",
            engine_incarnation=f"{local.engine:x}",
            record=record is not None,
        )

    def _sink(self, event: EngineEvent) -> None:
        if self._driver is not None:
            self._driver.sink(event)

    def _note_of_engine(self, event: str, fields: dict[str, object]) -> None:
        self.log.note(event, **fields)

    async def _take_seat(self) -> None:
        # Decided before the seat is taken: what is announced is what the kernel was asked for, or less.
        self.self_fence = announce(self.config, bool(self._switch.info().capabilities & CAP_RESET))
        seat = await take_seat(self._switch, self.config, self.nodeid, self.handle, self.self_fence.grace_ms)
        self._session, self._incarnation = seat.session, seat.incarnation
        self.log.note(
            "attached",
            handle=self.handle,
            incarnation=f"{seat.incarnation:x}",
            self_fencing=self.self_fence.usable,
            groups=[f"{g.name} ({g.state.name.lower()})" for g in self._switch.groups(self.handle)],
        )

    # --- what the driver says -----------------------------------------------------------------------------------------

    def _on_failed(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()  # whoever never looks must not get a warning at exit
        if self._leave is not None and not self._leave.done():
            self._leave.set_exception(error)

    def _on_notice(self, notice: Notice) -> None:
        self._commands.heard(notice)
        self._restart.heard(notice)
        if (cut_off := self.fencing.cut_off(notice)) is not None:
            self.fail(cut_off)
        if notice.event == "leave_refused" and self._leave is not None and not self._leave.done():
            why = notice.fields.get("why") or notice.fields.get("reason") or ""
            self._leave.set_exception(self._refusal(str(why)))

    def _refusal(self, why: str = "") -> LeaveRefused:
        held = ", ".join(holders(g.name for g in self.groups()))
        if held:
            return LeaveRefused(f"node {self.nodeid} is in groups: {held}", "unmount and stop what uses them, then try again")
        return LeaveRefused(f"node {self.nodeid} cannot leave now{': ' + why if why else ''}")

    def _on_left(self) -> None:
        # Not the caller's business to finish this: it may have given up waiting, and the node is out all the same.
        self._departure = asyncio.create_task(self._depart(), name="departure")
        self._departure.add_done_callback(self._departed)

    def _departed(self, done: asyncio.Task[None]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._on_failed(error)
        elif self._leave is not None and not self._leave.done():
            self._leave.set_result(None)

    # --- what others ask ----------------------------------------------------------------------------------------------

    def groups(self) -> list[Group]:
        """The local groups as the switch holds them; none if it cannot be asked."""
        with contextlib.suppress(SwitchError):
            return self._switch.groups(self.handle)
        return []

    def open_channel(self, group: str, explicit: bool) -> socket.socket:
        """A batch channel of a group that this node is in: the program's end of it. Raises VcsError."""
        if self._channels is None or self._stopped or self.left.is_set():
            raise VcsError(f"node {self.nodeid} is not running")
        return self._channels.open(group, explicit)

    def channel_counters(self) -> dict[str, int]:
        return self._channels.counters() if self._channels is not None else {}

    def live_groups(self) -> list[str]:
        """Names of what may still write, or wait, on this node's membership."""
        return sorted(g.name for g in self.groups() if g.state is not GroupState.LEAVING)

    def view(self) -> View:
        """The view in the switch; an empty one if it cannot be asked."""
        with contextlib.suppress(SwitchError):
            return self._switch.view(self.handle)
        return View(0, RingId(0, 0), False, ())

    def discharged(self) -> set[tuple[int, int]]:
        """(nodeid, boot incarnation) of the last nodes that were fenced."""
        return {(n, boot) for n, boot, _how in self._coordinator.state.discharged} if self._coordinator else set()

    def cluster_info(self) -> ClusterInfo | None:
        with contextlib.suppress(SwitchError):
            return next((c for c in self._switch.clusters() if c.handle == self.handle), None)
        return None

    def owns(self, something: object) -> bool:
        """True for the engine and the driver: what breaks there, outside of any call of ours, breaks this node."""
        return something is not None and something in (self._engine, self._driver)

    def fail(self, error: BaseException) -> None:
        """Something outside of the driver found out that this node cannot go on."""
        self._hang_up()
        if self._driver is not None:
            self._driver.close()
        self._on_failed(error)

    @property
    def incarnation(self) -> int:
        return self._incarnation

    @property
    def engine(self) -> Engine | None:
        return self._engine

    def describe(self) -> dict[str, object]:
        """The coordinator's picture, JSON-able."""
        return self._coordinator.describe() if self._coordinator is not None else {}

    def why(self) -> object:
        """What is waited for, on whom; JSON-able."""
        now = boottime_ns()
        items = self._coordinator.why(now) if self._coordinator is not None else []
        return [*items, *(wait.row(now) for source in self.wait_sources for wait in source())]

    def counters(self) -> dict[str, int]:
        return dict(self._driver.counters) if self._driver is not None else {}

    async def command(self, body: Body, remedy: str = "") -> None:
        """Have it ordered. Raises VcsError when it changes nothing, or cannot be ordered."""
        await self._commands.ask(None if self._stopped else self._driver, body, remedy)

    def fence_ack(self, nodeid: int) -> None:
        """An administrator vouches that the node is off. Raises VcsError for an unknown node."""
        node = self.config.node(nodeid)
        if node is None or nodeid == self.nodeid:
            known = ", ".join(f"{n.id} ({n.name})" for n in self.config.nodes if n.id != self.nodeid)
            raise VcsError(f"node {nodeid} cannot be acknowledged here", f"one of: {known}")
        if self._coordinator is None or not explain.awaited(self._coordinator, nodeid):
            raise VcsError(f"nobody waits for node {nodeid} ({node.name}) to be off", "look at `vcs why`")
        self.log.note("fence_ack", nodeid=nodeid)
        if self._driver is not None:
            self._driver.feed(FenceAck(nodeid))

    # --- the end ------------------------------------------------------------------------------------------------------

    async def leave(self, timeout_s: float = LEAVE_TIMEOUT_S) -> None:
        """Leave the cluster cleanly and free the seat. Raises LeaveRefused while in groups, VcsError if it takes too long."""
        if self.left.is_set():
            return
        if self._driver is None or self._stopped:
            raise VcsError(f"node {self.nodeid} is not running")
        if self._leave is None or self._leave.done():
            self._leave = asyncio.get_running_loop().create_future()
            self._driver.feed(LeaveCluster())
        try:
            await asyncio.wait_for(asyncio.shield(self._leave), timeout_s)
        except TimeoutError:
            raise VcsError(f"the leave of node {self.nodeid} was not done within {timeout_s:g} s", "see `vcs why`") from None

    async def announce_restart(self) -> bool:
        """Tell the others that this daemon goes over live groups and one is back within [restart] planned_ms. True: stop() is due."""
        planned_ms = self.config.restart.planned_ms
        if self.self_fence.usable:  # nobody renews the lease meanwhile, and its end resets this machine
            planned_ms = min(planned_ms, self.config.lease.lease_ms)
        return not self.failed.done() and await self._restart.tell(self._driver, planned_ms)

    async def _depart(self) -> None:
        """After LeaveDone: nothing is owed to anybody any more."""
        assert self._driver is not None and self._engine is not None
        self._hang_up()
        self._driver.close()
        await self._engine.leave()
        if self.before_departure is not None:
            await self.before_departure()
        give_back(self._switch, self.handle, self._session)
        self._switch.cluster_del(self.handle)
        self.log.note("left", nodeid=self.nodeid)
        self.left.set()

    def _hang_up(self) -> None:
        if self._channels is not None:
            self._channels.close()
        if self._witness is not None:
            self._witness.close()

    def abort(self) -> None:
        """End as a killed process does, without a word to anybody; for tests. The sockets close as the kernel would close them."""
        self._stopped = True
        self._hang_up()
        self.fencing.close()
        if self._driver is not None:
            self._driver.close()
        abort = getattr(self._engine, "abort", None)
        if abort is not None:
            abort()
        with contextlib.suppress(VcsError, OSError):
            self._switch.close()

    async def stop(self) -> None:
        """Stop at once without a clean leave, unless it happened before: the others see a failure. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        if self._departure is not None and not self._departure.done():
            self._departure.cancel()
            await asyncio.wait([self._departure])
        self._hang_up()
        self.fencing.close()
        if self._driver is not None:
            self._driver.close()
        if self._engine is not None and not self.left.is_set():
            with contextlib.suppress(VcsError, OSError):
                await self._engine.leave()
        with contextlib.suppress(VcsError, OSError):
            self._switch.close()
