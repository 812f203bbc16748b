# SPDX-License-Identifier: GPL-2.0-only
"""The dull executor between engine, coordinator and switch: it decides nothing.

Inputs (the engine's stream, the switch's groups, results of fences, the administrator's wishes, time) go through one queue into
``coordinator.handle``; its effects are carried out in order, each completely before the next. A Persist is written by a thread, so
the ring's token goes on turning while the disk works; inputs that come meanwhile wait in the queue. Nothing nests: an effect that
causes an input (a submit that is delivered at once, a hint) only appends to the queue.

Feeding is level-triggered: hints mean "read again", and so do a lost hint, a refused call, and every five seconds.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Protocol

from bridge.coordinator.api import (
    AskWitness,
    CancelFence,
    Effect,
    Fenced,
    FenceDone,
    FinishGroup,
    Freeze,
    Input,
    InstallView,
    LaunchFence,
    LeaveDone,
    LeftGroup,
    LocalGroups,
    Notice,
    Persist,
    RenewLease,
    RestartReady,
    StartGroup,
    StopGroup,
    Submit,
    Tick,
    WakeAt,
)
from bridge.fence_agent import FenceOrder, Outcome
from bridge.storage import RecordFile
from bridge.switch import ProviderPort
from membership.api import Engine, EngineEvent, Health, Rotation
from vcs.config.model import ClusterConfig
from vcs.errors import SwitchError, VcsError
from vcs.events import EventLog, boottime_ns
from vcs.model import ProviderState, event_text
from vcs.realtime import as_we_are

REREAD_S = 5.0
"Slow timer: the groups are read again even if no hint came."
BATCH = 512
"So many inputs are handled before the event loop gets its turn."
SUBMIT_RETRY_S = 0.01
SUBMITS_MAX = 10000
"Submits that wait because the engine's queue is full; more means that the ring does not move any more."
REFUSED_FIRST_S, REFUSED_MAX_S = 0.01, 5.0
"A call that is refused again and again makes us read the groups less and less often."


class Decider(Protocol):
    """The coordinator, as far as the driver knows it."""

    def handle(self, what: Input, now_ns: int, /) -> Sequence[Effect]: ...

    def still_owed(self, nodeid: int, incarnation: int, /) -> bool:
        """Is that incarnation to be fenced, as far as is known by now?"""


class Channels(Protocol):
    """Batch channels (bridge/channel), as far as the driver knows them."""

    def take(self, what: Input, /) -> bool:
        """True: it was theirs, and is not for the coordinator."""

    def look(self, what: Input, /) -> None:
        """The coordinator has handled ``what``."""


class Fencer(Protocol):
    """What carries a fence out (bridge/fence_agent.py), as far as the driver knows it."""

    def launch(self, order: FenceOrder, /) -> asyncio.Future[Outcome]: ...
    def cancel(self, nodeid: int, incarnation: int, /) -> None: ...
    def close(self) -> None: ...


class Witness(Protocol):
    """The line to the witness (bridge/witness/client.py), as far as the driver knows it."""

    def ask(self, what: AskWitness, /) -> None: ...


class SeatLost(VcsError):
    """The switch does not take us for its provider any more: the lease ran out, or somebody took the seat."""


class Driver:
    """Runs on one event loop. ``on_left`` is called once after LeaveDone, ``on_failed`` once when nothing more can be done."""

    def __init__(
        self,
        config: ClusterConfig,
        coordinator: Decider,
        switch: ProviderPort,
        *,
        seat: tuple[str, int],
        storage: RecordFile,
        fencer: Fencer | None,
        log: EventLog,
        on_left: Callable[[], None],
        on_failed: Callable[[BaseException], None],
        on_notice: Callable[[Notice], None] = lambda _notice: None,
        on_restart: Callable[[], None] = lambda: None,
        channels: Channels | None = None,
        witness: Witness | None = None,
    ) -> None:
        """``seat`` is (handle, session) of the attach."""
        self._config = config
        self._coordinator = coordinator
        self._switch = switch
        self._handle, self._session = seat
        self._storage = storage
        self._fencer = fencer
        self._channels = channels
        self._witness = witness
        self._log = log
        self._on_left, self._on_failed, self._on_notice, self._on_restart = on_left, on_failed, on_notice, on_restart
        self._engine: Engine | None = None
        self._loop = asyncio.get_running_loop()
        self._disk = ThreadPoolExecutor(1, "persist", as_we_are())  # what it writes holds everything up
        self._disk.submit(int)  # its thread exists from now on: no allocation in an emergency
        self._inputs: deque[Input] = deque()
        self._effects: deque[Effect] = deque()
        self._submits: deque[Submit] = deque()
        self._record: bytes | None = None
        self._pumping = self._saving = self._closed = False
        self._held = True  # until start(): the engine's first configuration must find the groups before it
        self._dirty = True
        self._refusals: dict[tuple[str, str], int] = {}
        self._renewed_ns = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._fences: dict[tuple[int, int], int] = {}
        self._hints_fd = -1
        self.counters = {"inputs": 0, "effects": 0, "refused": 0, "renewals": 0, "rereads": 0}
        self._actions: dict[type, Callable[..., None]] = {
            Submit: self._submit,
            InstallView: self._install_view,
            StopGroup: self._stop_group,
            StartGroup: self._start_group,
            FinishGroup: self._finish_group,
            LeftGroup: self._left_group,
            LaunchFence: self._launch_fence,
            CancelFence: self._cancel_fence,
            Fenced: self._tell_fenced,
            RenewLease: self._renew_lease,
            Freeze: self._freeze,
            Persist: self._persist,
            AskWitness: self._ask_witness,
            WakeAt: self._wake_at,
            LeaveDone: self._leave_done,
            RestartReady: self._restart_ready,
            Notice: self._notice,
        }

    # --- life ---------------------------------------------------------------------------------------------------------

    def sink(self, event: EngineEvent) -> None:
        """The engine's sink."""
        if isinstance(event, Health):
            self._log.note("peer_health", nodeid=event.nodeid, what=event.what, detail=event.detail)
            if event.what != "process_dead":
                return
        if isinstance(event, Rotation) and self._inputs:
            last = self._inputs[-1]
            if isinstance(last, Rotation) and last.ring == event.ring:
                self._inputs[-1] = event  # the newer one says more, and a slow disk must not pile them up
                return
        self.feed(event)

    async def start(self, engine: Engine) -> None:
        """Subscribe to the switch, read it, start the engine and begin. Raises what the engine raises."""
        self._engine = engine
        self._hints_fd = self._switch.hints_fd()
        self._loop.add_reader(self._hints_fd, self._on_hints)
        self._read_groups()
        await engine.start()
        self._held = False
        self._reread_later()
        self._pump()

    def feed(self, what: Input) -> None:
        """Queue an input and handle what can be handled. Never nests."""
        self._inputs.append(what)
        self._pump()

    def close(self) -> None:
        """Stop at once; nothing is called afterwards. A fence that runs is called off: another node fences now. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._fencer is not None:
            self._fencer.close()
        for timer in self._timers.values():
            timer.cancel()
        if self._hints_fd >= 0:
            self._loop.remove_reader(self._hints_fd)
        self._disk.shutdown(wait=False)

    # --- the queue ----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        if self._pumping or self._held or self._closed:
            return
        self._pumping = True
        handled = 0
        try:
            while not (self._saving or self._held or self._closed):
                if self._effects:
                    self.counters["effects"] += 1
                    effect = self._effects.popleft()
                    self._actions[type(effect)](effect)
                elif self._inputs:
                    if handled == BATCH:
                        self._loop.call_soon(self._pump)
                        break
                    handled += 1
                    self._handle_input(self._inputs.popleft())
                elif self._dirty:
                    self._read_groups()
                else:
                    break
        except Exception as error:
            self._fail(error)
        finally:
            self._pumping = False

    def _handle_input(self, what: Input) -> None:
        self.counters["inputs"] += 1
        channels = self._channels
        if channels is None:
            self._effects.extend(self._coordinator.handle(what, boottime_ns()))
        elif not channels.take(what):
            self._effects.extend(self._coordinator.handle(what, boottime_ns()))
            channels.look(what)

    def _fail(self, error: BaseException) -> None:
        if not self._closed:
            self.close()
            self._log.note("bridge_failed", error=f"{type(error).__name__}: {error}")
            self._on_failed(error)

    def _timer(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        """(Re)set the named timer."""
        old = self._timers.pop(name, None)
        if old is not None:
            old.cancel()
        self._timers[name] = self._loop.call_later(max(delay_s, 0.0), call)

    # --- the switch, read ---------------------------------------------------------------------------------------------

    def _on_hints(self) -> None:
        try:
            hints = self._switch.hints()
            whats = {hint.what for hint in hints if hint.handle in ("", self._handle)}
            if whats & {"provider", "lost"}:
                self._check_seat()
        except (VcsError, OSError) as error:
            self._fail(error)
            return
        if whats & {"group", "lost"}:
            self._dirty = True
            self._pump()

    def _reread_later(self) -> None:
        self._timer("reread", REREAD_S, self._reread)

    def _reread(self) -> None:
        try:
            self._check_seat()
        except (VcsError, OSError) as error:
            self._fail(error)
            return
        self._dirty = True
        self._reread_later()
        self._pump()

    def _read_groups(self) -> None:
        self._dirty = False
        self.counters["rereads"] += 1
        self._inputs.append(LocalGroups(tuple(self._switch.groups(self._handle))))

    def _check_seat(self) -> None:
        """Raises SeatLost unless the switch holds us for its provider."""
        for cluster in self._switch.clusters():
            if cluster.handle == self._handle:
                if cluster.provider_state == ProviderState.ATTACHED:
                    return
                raise SeatLost(f"the switch says that the provider of {self._handle} is {cluster.provider_state.name}")
        raise SeatLost(f"the switch has no cluster {self._handle} any more")

    # --- the switch, told ---------------------------------------------------------------------------------------------

    def _tell(self, what: str, group: str, call: Callable[[], object], **fields: object) -> bool:
        """One call to the switch, noted. Refused: noted, and the groups are read again, so the coordinator sees why."""
        try:
            call()
        except SwitchError as error:
            self._refused(what, group, error)
            return False
        self._refusals.pop((what, group), None)
        if group:
            fields["group"] = group
        self._log.note(what, **fields)
        return True

    def _refused(self, what: str, group: str, error: SwitchError) -> None:
        self.counters["refused"] += 1
        code = errno.errorcode.get(error.errno, str(error.errno))
        times = self._refusals[what, group] = self._refusals.get((what, group), 0) + 1
        self._log.note("switch_refused", call=what, group=group, errno=code, detail=error.message, times=times)
        if error.errno in (errno.ESTALE, errno.EBADF, errno.ENOENT):
            self._check_seat()
        if times == 1:
            self._dirty = True
            return
        delay = min(REFUSED_FIRST_S * 2 ** min(times - 2, 10), REFUSED_MAX_S)
        self._timer("refused", delay, self._read_after_refusal)

    def _read_after_refusal(self) -> None:
        self._dirty = True
        self._pump()

    def _install_view(self, e: InstallView) -> None:
        generation = self._switch.view_set(self._handle, self._session, e.ring, e.quorate, e.members)
        self._log.note(
            "switch_view",
            generation=generation,
            ring=str(e.ring),
            quorate=e.quorate,
            members=[m.nodeid for m in e.members],
        )

    def _stop_group(self, e: StopGroup) -> None:
        self._tell(
            "group_stop",
            e.name,
            lambda: self._switch.group_stop(self._handle, self._session, e.name, e.event),
            id=event_text(e.event),
        )

    def _start_group(self, e: StartGroup) -> None:
        self._tell(
            "group_start",
            e.name,
            lambda: self._switch.group_start(self._handle, self._session, e.name, e.event, e.members),
            id=event_text(e.event),
            members=[m.nodeid for m in e.members],
        )

    def _finish_group(self, e: FinishGroup) -> None:
        self._tell(
            "group_finish",
            e.name,
            lambda: self._switch.group_finish(self._handle, self._session, e.name, e.event),
            id=event_text(e.event),
        )

    def _left_group(self, e: LeftGroup) -> None:
        self._tell(
            "switch_left",
            e.name,
            lambda: self._switch.group_left(self._handle, self._session, e.name, e.error),
            error=e.error,
        )

    def _tell_fenced(self, e: Fenced) -> None:
        self._tell(
            "switch_fenced",
            "",
            lambda: self._switch.fenced(self._handle, self._session, e.nodeid, e.incarnation),
            nodeid=e.nodeid,
            incarnation=f"{e.incarnation:x}",
        )

    def _renew_lease(self, e: RenewLease) -> None:
        """At most twenty times per lease. Leaving one out is safe: the deadline is then earlier, never later (SAFETY S9)."""
        if e.valid_from_ns - self._renewed_ns < self._config.lease.lease_ms * 1_000_000 // 20:
            return
        try:
            self._switch.lease_renew(self._handle, self._session, e.valid_from_ns)
        except SwitchError as error:
            self._refused("lease_renew", "", error)
            return
        self._renewed_ns = e.valid_from_ns
        self.counters["renewals"] += 1

    def _freeze(self, e: Freeze) -> None:
        self._tell(
            "lease_freeze",
            "",
            lambda: self._switch.lease_freeze(self._handle, self._session, e.until_ns),
            until_ns=e.until_ns,
        )

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _submit(self, e: Submit) -> None:
        assert self._engine is not None
        if len(e.payload) > self._engine.max_message:
            raise VcsError(f"a message of {len(e.payload)} bytes is above the engine's {self._engine.max_message}")
        self._submits.append(e)
        self._flush_submits()

    def _flush_submits(self) -> None:
        """Hand over what the engine takes; the rest, in order, a moment later."""
        assert self._engine is not None
        while self._submits:
            head = self._submits[0]
            try:
                self._engine.submit(head.payload, head.order)
            except VcsError as error:
                if len(self._submits) > SUBMITS_MAX:
                    self._fail(VcsError(f"{SUBMITS_MAX} messages wait for the engine: {error}"))
                    return
                if "submit" not in self._timers:
                    self._log.note("submit_delayed", waiting=len(self._submits), error=str(error))
                self._timer("submit", SUBMIT_RETRY_S, self._flush_again)
                return
            self._submits.popleft()

    def _flush_again(self) -> None:
        self._timers.pop("submit", None)
        if not self._closed:
            self._flush_submits()

    def _persist(self, e: Persist) -> None:
        if e.record == self._record:
            return  # it is on the disk already
        self._saving = True
        self._loop.run_in_executor(self._disk, self._storage.save, e.record).add_done_callback(
            lambda done: self._saved(e.record, done)
        )

    def _saved(self, record: bytes, done: asyncio.Future[None]) -> None:
        if self._closed or done.cancelled():
            return
        error = done.exception()
        if error is not None:
            # What cannot be remembered must not be acted on (SAFETY S6), so there is nothing left to do.
            self._fail(error)
            return
        self._record = record
        self._saving = False
        self._pump()

    def _ask_witness(self, e: AskWitness) -> None:
        if self._witness is not None:
            self._witness.ask(e)

    def _wake_at(self, e: WakeAt) -> None:
        self._timer("tick", (e.at_ns - boottime_ns()) / 1e9, lambda: self.feed(Tick()))

    def _leave_done(self, _e: LeaveDone) -> None:
        self._held = True
        self._effects.clear()
        self._on_left()

    def _restart_ready(self, _e: RestartReady) -> None:
        self._held = True
        self._effects.clear()
        self._on_restart()

    def _notice(self, e: Notice) -> None:
        self._log.note(e.event, **e.fields)
        self._on_notice(e)

    def _launch_fence(self, e: LaunchFence) -> None:
        key = (e.nodeid, e.incarnation)
        self._fences[key] = self._fences.get(key, 0) + 1
        if self._fences[key] > 1:
            return  # one call is enough; its result answers all
        if self._fencer is None:
            self._fence_ended(e, Outcome(False, f"no fence agent is configured for node {e.nodeid}"))
            return
        order = FenceOrder(e.nodeid, e.incarnation, e.method, e.action, lambda: self._coordinator.still_owed(*key))
        self._log.note("fence_launch", nodeid=e.nodeid, incarnation=f"{e.incarnation:x}", method=e.method)
        self._fencer.launch(order).add_done_callback(lambda done: self._fence_ended(e, done.result()))

    def _cancel_fence(self, e: CancelFence) -> None:
        if self._fencer is not None:
            self._fencer.cancel(e.nodeid, e.incarnation)

    def _fence_ended(self, e: LaunchFence, outcome: Outcome) -> None:
        if self._closed:
            return
        done = Notice("fence_done", {
            "nodeid": e.nodeid, "incarnation": f"{e.incarnation:x}", "ok": outcome.ok, "method": outcome.method, "detail": outcome.detail,
            "ms": round(outcome.seconds * 1000), "steps": [asdict(step) for step in outcome.steps],
        })  # fmt: skip
        self._notice(done)
        for _ in range(self._fences.pop((e.nodeid, e.incarnation), 1)):
            self._inputs.append(FenceDone(e.nodeid, e.incarnation, outcome.ok, outcome.detail, outcome.method, outcome.cut))
        self._pump()
