# SPDX-License-Identifier: GPL-2.0-only
"""dlm_glue as a component: the only place here with a loop, descriptors and threads. It feeds the plan and carries its effects out.

Level-triggered throughout: a hint, a finished step, a refused call and a slow timer all lead to the same thing, reading the switch
again. The record of what was applied is in the claim *before* the effects of a decision run (SAFETY S2).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from bridge.switch import ConsumerPort
from dlm_glue import fold, plan, takeover
from dlm_glue.apply import Applier, ApplyError
from dlm_glue.fold import DLM_RS_DONE
from dlm_glue.gfs2 import Journals
from dlm_glue.journal import Journal
from dlm_glue.lanes import Lanes
from dlm_glue.lockspace import LOCKSPACE_MAX, Tree, read_status, scan
from dlm_glue.state import (
    CLAIM,
    ONLINE,
    OWNER,
    Ack,
    AddComms,
    Answer,
    AskRefusal,
    Clear,
    Done,
    DropComms,
    Effect,
    Input,
    Join,
    Leave,
    Note,
    Pending,
    Run,
    Seen,
    Start,
    State,
    Status,
    Stop,
    Teardown,
    Tick,
    Uevent,
    decode_record,
    encode_record,
    group_name,
)
from dlm_glue.uevents import Gfs2Recovery, LockspaceEvent, Overrun, UeventReader
from vcs.errors import SwitchError, VcsError
from vcs.events import EventLog
from vcs.model import GroupFlags, Level

TICK_S = 5.0
"The slow timer: lost hints, and whatever failed."
POLL_S = 0.01
"How often recover_status is read while a recovery runs; there is no uevent for its end, and nothing to poll(2) for."
POLL_SHARE = 4
"Reading a hundred of them takes long, and we run before the kernel's recovery: rest for so many times what it took."
COMMS_LANE = "comms/"
"No lockspace can have this name."
FLAGS = GroupFlags.PERSISTENT | GroupFlags.NEEDS_FENCE

logger = logging.getLogger("dlm_glue")


class Glue:
    """One per kernel. ``start()`` raises VcsError when it cannot take the seat; ``failed`` ends with what went wrong later."""

    def __init__(
        self,
        *,
        handle: str,
        nodeid: int,
        configured: frozenset[int],
        switch: ConsumerPort,
        tree: Tree,
        applier: Applier,
        uevents: UeventReader,
        journal: Journal,
        log: EventLog,
        configs: Mapping[str, str] | None = None,
        refusal: Callable[[str], tuple[int, str]] = lambda group: (errno.EIO, "the join was refused"),
    ) -> None:
        """``configs``: LockspaceConfig.text() by lockspace. ``refusal``: why a group's join was refused; it may wait."""
        self._handle = handle
        self._configured = configured
        self._configs = dict(configs or {})
        self._refusal = refusal
        self._switch = switch
        self._tree = tree
        self._applier = applier
        self._uevents = uevents
        self._journal = journal
        self._log = log
        self._sessions: dict[str, int] = {}
        self._recorded = b""
        self._queue: deque[Input | None] = deque()
        "None: read the switch, when its turn comes and not before. A reading from before a join would say that the group is gone."
        self._feeding = False
        self._soon = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._poll_s = POLL_S
        self._polled: dict[str, int] = {}
        "recover_status of those that recover, at the last look."
        self._loop: asyncio.AbstractEventLoop
        self._lanes: Lanes
        self.failed: asyncio.Future[None]
        self.journals = Journals(applier.cluster, tree, log)
        self.state = State(nodeid)
        self.watchers: list[Callable[[State], None]] = []
        "Told of the state after each decision."

    # --- life -------------------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.attach(loop, Lanes(loop))
        before = self.claim()
        prepared = loop.create_future()
        self._lanes.submit(COMMS_LANE, self._applier.prepare, prepared.set_result)
        error = await prepared
        if isinstance(error, OSError):
            raise VcsError(f"the kernel's DLM cannot be set up: {error}")
        if error is not None:
            raise error
        self.inherit(before)
        loop.add_reader(self._switch.hints_fd(), self._guarded(self.on_hints))
        loop.add_reader(self._uevents.fileno(), self._guarded(self.on_uevents))
        self.on_uevents()
        self.on_hints()
        self._later("tick", TICK_S, self.on_tick)

    def attach(self, loop: asyncio.AbstractEventLoop, lanes: Lanes) -> None:
        self._loop, self._lanes = loop, lanes
        self.journals.attach(loop, lanes)
        self.failed = loop.create_future()

    def close(self) -> None:
        """Let go of everything and change nothing: the groups are orphans then, for a successor to take over."""
        self._feeding = True  # what ends from now on is the successor's business
        for timer in self._timers.values():
            timer.cancel()
        with contextlib.suppress(SwitchError):
            self._loop.remove_reader(self._switch.hints_fd())
        self._loop.remove_reader(self._uevents.fileno())
        self._lanes.close()
        self._switch.close()
        self._uevents.close()
        self._journal.close()

    def claim(self) -> bytes:
        try:
            return self._switch.claim(CLAIM)
        except SwitchError as error:
            if error.errno == errno.EBUSY:
                raise VcsError("another dlm_glue runs on this machine", "there is one fs/dlm per kernel: stop the other one") from None
            raise

    def inherit(self, before: bytes) -> None:
        try:
            record = decode_record(before)
        except ValueError as error:
            logger.warning("the record of the predecessor is useless, everything is made anew: %s", error)
            record = {}, {}
        self._recorded = before
        # First what was told, then what can be seen: so hardly anything is heard twice, and the journal sorts out the rest.
        self._listen()
        found = scan(self._tree, self._applier.paths)
        groups = self._switch.groups(self._handle)
        heard = self._journal.pending
        got = takeover.inherit(
            self.state.nodeid, self._configured, found=found, record=record, groups=groups, pending=heard, configs=self._configs
        )
        self.state = got.state
        for pending in got.stale:
            self._journal.answered(pending)
        for name in got.unheard:
            self._hear(name)
        taken = sorted(name for name, space in got.state.spaces.items() if space.present)
        self._log.note("glue_started", lockspaces=taken, pending=len(got.state.pending), comms=sorted(got.state.comms))

    def _hear(self, lockspace: str) -> None:
        """A join that waits in the kernel although its uevent is lost."""
        logger.warning("lockspace %s waits to be joined, its uevent was lost", lockspace)
        pending = self._journal.add(ONLINE, lockspace)
        if pending is not None:
            self._queue.append(Uevent(pending))

    # --- what comes in ----------------------------------------------------------------------------------------------------------------

    def _guarded(self, callback: Callable[[], None]) -> Callable[[], None]:
        """An exception in a callback would only be logged by the loop, and we would live on deaf."""

        def run() -> None:
            try:
                callback()
            except Exception as error:
                if not self.failed.done():
                    self.failed.set_exception(error)

        return run

    def _later(self, name: str, delay_s: float, callback: Callable[[], None]) -> None:
        self._timers[name] = self._loop.call_later(delay_s, self._guarded(callback))

    def on_hints(self) -> None:
        self._switch.hints()
        self.feed(None)

    def on_tick(self) -> None:
        self._later("tick", TICK_S, self.on_tick)
        self.feed(None, Tick())

    def on_uevents(self) -> None:
        heard, overrun = self._listen()
        self._queue.extend(Uevent(p) for p in heard)
        if overrun:
            self._rescan()
        self.feed()

    def _listen(self) -> tuple[list[Pending], bool]:
        """Empty the uevent socket into the journal: (what was new, whether something was lost)."""
        heard: list[Pending] = []
        overrun = False

        def keep(event: LockspaceEvent) -> None:
            pending = self._journal.add(event.action, event.lockspace)
            if pending is not None:
                heard.append(pending)

        for event in self._uevents.read(keep):
            match event:
                case Gfs2Recovery(table, jid, result):
                    self._log.note("gfs2_recovery", table=table, jid=jid, result=result)
                    self.journals.reported(table, jid, result == "Done")
                case Overrun():
                    self._log.note("uevents_lost")
                    overrun = True
        return heard, overrun

    def _rescan(self) -> None:
        found = scan(self._tree, self._applier.paths)
        for name, left in found.spaces.items():
            if takeover.never_answered(left) and name not in self.state.spaces:
                self._hear(name)

    def _read(self) -> Seen:
        """The groups first: so the view is at least as new as every event."""
        groups = tuple(self._switch.groups(self._handle))
        return Seen(groups, self._switch.view(self._handle))

    def on_poll(self) -> None:
        """There is no uevent for "recovery done" in 6.1 or 6.12, and sysfs does not notify: read, but only while somebody recovers."""
        self._timers.pop("poll", None)
        begun = self._loop.time()
        before, self._polled = self._polled, {}
        for name, space in self.state.spaces.items():
            if space.run is Run.RECOVERING:
                with contextlib.suppress(OSError):  # the lockspace is just going; its offline uevent says so
                    value = self._polled[name] = read_status(self._tree, self._applier.paths, name)
                    # We run before everybody else: a decision at each look would take the recovery's own time.
                    if value != before.get(name) or value & DLM_RS_DONE:
                        self._queue.append(Status(name, value))
        self._poll_s = max(POLL_S, POLL_SHARE * (self._loop.time() - begun))
        self.feed()

    # --- the plan ---------------------------------------------------------------------------------------------------------------------

    def feed(self, *inputs: Input | None) -> None:
        """Take the inputs in, and whatever follows from them at once. Not re-entrant: an input of an effect waits its turn."""
        self._queue.extend(inputs)
        if self._feeding:
            return
        self._soon = False
        self._feeding = True
        try:
            while self._queue:
                self._decide()
        finally:
            self._feeding = False
        recovering = any(s.run is Run.RECOVERING for s in self.state.spaces.values())
        if recovering and "poll" not in self._timers:
            self._later("poll", self._poll_s, self.on_poll)

    def _feed_soon(self, done: Done) -> None:
        """Steps of many lockspaces end together: one decision for all that the loop has at hand."""
        self._queue.append(done)
        if not self._soon:
            self._soon = True
            self._loop.call_soon(self._guarded(self.feed))

    def _decide(self) -> None:
        """One decision for everything in the queue. It looks at all lockspaces: one for each input would cost their number squared."""
        effects: list[Effect] = []
        while self._queue:
            self._become(*fold.feed(self.state, self._queue.popleft() or self._read()), effects)
        self._become(*plan.decide(self.state), effects)
        record = encode_record(self.state)
        if record != self._recorded:
            self._switch.claim(CLAIM, record)
            self._recorded = record
        # All of them, then one look at what the switch makes of them.
        if True in [self._execute(effect) for effect in effects]:
            self._queue.append(None)
        for watcher in self.watchers:
            watcher(self.state)

    def _become(self, state: State, new: Sequence[Effect], effects: list[Effect]) -> None:
        """The next state; lets go of what belongs to lockspaces that are not in it."""
        for name in self.state.spaces.keys() - state.spaces.keys():
            self._lanes.end(name)
            self._sessions.pop(name, None)
            self.journals.forget(name)
        self.state = state
        effects += new

    def _execute(self, effect: Effect) -> bool:
        """True when the switch must be read again."""
        match effect:
            case Note(event, fields):
                self._log.note(event, **fields)
                return False
            case Join() | Leave() | Ack():
                self._queue.append(self._call(effect))
                return True
            case AddComms():
                self._work(COMMS_LANE, effect, lambda: self._applier.add_comms(effect))
            case DropComms():
                self._work(COMMS_LANE, effect, lambda: self._applier.drop_comms(effect))
            case Stop():
                self.journals.stopping(effect.lockspace)
                self._work(effect.lockspace, effect, lambda: self._applier.stop(effect))
            case Clear():
                self.journals.dropping(effect.lockspace, len(effect.nodes))
                self._work(effect.lockspace, effect, lambda: self._applier.clear(effect))
            case Start():
                self.journals.starting(effect.lockspace)
                self._work(effect.lockspace, effect, lambda: self._applier.start(effect))
            case Teardown():
                self._work(effect.lockspace, effect, lambda: self._applier.teardown(effect))
            case Answer():
                self._work(effect.lockspace, effect, lambda: self._answer(effect))
            case AskRefusal():
                self._work(effect.lockspace, effect, lambda: self._ask_refusal(effect.lockspace))
        return False

    def _answer(self, effect: Answer) -> None:
        """In the lane's thread, so that dying between the two lines is all that can leave a caller without an answer."""
        self._journal.answering(effect.pending)
        self._applier.answer(effect)

    def _ask_refusal(self, lockspace: str) -> None:
        """In the lane's thread: vcsd may take its time."""
        code, why = self._refusal(group_name(lockspace))
        raise ApplyError(code, why)

    def _call(self, effect: Join | Leave | Ack) -> Done:
        name = effect.lockspace
        group = group_name(name)
        try:
            match effect:
                case Join():
                    if len(name.encode()) > LOCKSPACE_MAX:
                        return Done(effect, errno.ENAMETOOLONG, f"a lockspace's name may have {LOCKSPACE_MAX} bytes")
                    joined = self._switch.join(self._handle, group, Level.LOCK_MANAGER, FLAGS, OWNER)
                    self._sessions[name] = joined.session
                case Leave():
                    self._switch.leave(self._handle, self._sessions[name], group)
                case Ack():
                    self._switch.ack(self._handle, self._sessions[name], group, effect.event, effect.phase)
        except SwitchError as error:
            return Done(effect, error.errno, str(error))
        return Done(effect)

    def _work(self, lane: str, effect: Effect, work: Callable[[], None]) -> None:
        begun = self._loop.time()

        def done(error: BaseException | None) -> None:
            took_ms = round((self._loop.time() - begun) * 1000, 1)
            self._guarded(lambda: self._worked(effect, error, took_ms))()

        self._lanes.submit(lane, work, done)

    def _worked(self, effect: Effect, error: BaseException | None, took_ms: float) -> None:
        if isinstance(effect, Answer):
            self._journal.answered(effect.pending)
        if error is None:
            logger.debug("%s done in %s ms", effect, took_ms)
            self._feed_soon(Done(effect))
            return
        code = error.errno if isinstance(error, (ApplyError, OSError)) else errno.EIO
        logger.error("%s failed: %s", effect, error, exc_info=None if isinstance(error, (ApplyError, OSError)) else error)
        self._feed_soon(Done(effect, code or errno.EIO, str(error)))
