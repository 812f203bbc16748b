# SPDX-License-Identifier: GPL-2.0-only
"""POSIX locks of this node: the thread that moves requests, messages and answers. What they mean is decided in plock_node.py.

A thread of its own, with plain poll(2): an operation on a file that this node alone uses costs one wait, one read and one write.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import NamedTuple

from dlm_glue.plock_device import Device
from dlm_glue.plock_line import RETRY_MAX_S, RETRY_S, Line
from dlm_glue.plock_log import FrameKind, Log, Mark
from dlm_glue.plock_node import Row
from dlm_glue.plock_quick import serve
from dlm_glue.plock_restart import restore, settle
from dlm_glue.state import State, global_id, group_name
from vcs import batch
from vcs.batch import Event
from vcs.channel import Channel, ChannelClosed
from vcs.errors import VcsError
from vcs.model import GroupState

READ_FIRST, READ = 2, 32
"Requests taken at once: room for many costs more than one request does."
DELIVERIES = 64
"Packets of one channel taken at once."
TIDY_S = 5.0
"A file that nobody used for so long is forgotten."
HURRY_S = 2.0
"A cancellation that has not come back through the order by then is answered without it."

logger = logging.getLogger("dlm_glue")


class Membership(NamedTuple):
    """This node in a lockspace's group."""

    join_id: int
    "0: not known (yet)."
    lost: bool


Open = Callable[[str], Channel]
"The channel of a group; raises VcsError: not now."


class Plocks:
    """``start()`` before the first mount. ``failed`` is told, once, in the thread."""

    def __init__(self, me: int, device: Device, log: Log, opener: Open, failed: Callable[[BaseException], None]) -> None:
        self._me, self._device, self._log, self._open, self._failed = me, device, log, opener, failed
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._lines: dict[int, Line] = {}
        self._by_fd: dict[int, int] = {}
        self._wanted: Mapping[str, Membership] = {}
        self._again: set[int] = set()
        "Channels that may have more to read, whatever poll(2) says."
        self._stopping = False
        self._tidy_at = 0.0
        self._cancel = (0, 0.0)
        "The oldest cancellation, and since when."
        self.node = restore(log, me)
        self._thread = threading.Thread(target=self._run, name="plocks", daemon=True)

    # --- from other threads ---------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def update(self, wanted: Mapping[str, Membership]) -> None:
        """The lockspaces that this node is in."""
        if wanted != self._wanted:
            self._wanted = dict(wanted)
            self._call(lambda wanted=self._wanted: self._follow(wanted))  # type: ignore[misc]

    def watch(self, state: State) -> None:
        """dlm_glue has decided: which lockspaces is this node in? An event that is being stopped names no members: what was known holds."""
        if state.view is None:
            return
        found: dict[str, Membership] = {}
        for name, group in state.groups.items():
            before = self._wanted.get(name, Membership(0, False))
            join_id = next((m.join_id for m in group.members if m.nodeid == state.nodeid), before.join_id)
            found[name] = Membership(join_id, group.state is GroupState.LOST)
        self.update(found)

    def lines(self, lockspace: str) -> list[str]:
        """As `dlm_tool plocks` prints them."""
        try:
            return [row.line() for row in self.rows(lockspace)]
        except TimeoutError:
            return []

    def without_state(self) -> frozenset[str]:
        """Lockspaces whose locks have not arrived here yet."""
        node = self.node
        return frozenset(name for fsid, (name, _id) in [*node.names.items()] if (m := node.members.get(fsid)) and not m.ready)

    def rows(self, lockspace: str, timeout_s: float = 1.0) -> list[Row]:
        """Its locks and requests. Raises TimeoutError."""
        found: Future[list[Row]] = Future()
        self._call(lambda: found.set_result(list(self.node.rows(global_id(lockspace)))))
        return found.result(timeout_s)

    def close(self) -> None:
        """Stop; the locks stay, for a successor."""
        if self._thread.is_alive():
            self._call(self._stop)
            self._thread.join(5.0)
        for line in self._lines.values():
            if line.channel is not None:
                line.channel.close()
        self._device.close()
        self._log.close()

    def _call(self, what: Callable[[], None]) -> None:
        self._calls.put(what)
        os.eventfd_write(self._wake, 1)

    def _stop(self) -> None:
        self._stopping = True

    # --- the thread -----------------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._begin()
            while not self._stopping:
                self._turn()
        except Exception as error:
            self._failed(error)

    def _begin(self) -> None:
        """Take what waits in the kernel, then answer what a predecessor did not."""
        while True:
            self._read()
            self.node.writes = settle(self.node, self._log, self._device)
            if not self._readable():
                break
        self._write()
        self._checkpoint()
        for fsid, (name, _join_id) in self.node.names.items():
            self._lines[fsid] = Line(name)
        self._poll.register(self._device, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._tidy_at = time.monotonic() + TIDY_S

    def _readable(self) -> bool:
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        return bool(poll.poll(0))

    def _turn(self) -> None:
        device, wake = self._device.fileno(), self._wake
        found, more = serve(self._poll, self._device, self._log, self.node, self._patience())
        if more:
            self._read()
        for fd, _what in found:
            if fd == device:
                self._read()
            elif fd == wake:
                self._serve_calls()
            elif fd in self._by_fd:
                self._receive(self._by_fd[fd])
        for fsid in [*self._again]:
            self._again.discard(fsid)
            self._receive(fsid)
        self._write()
        for fsid, line in self._lines.items():
            self._pump(fsid, line)
        self._write()
        now = time.monotonic()
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_S
            self._log.frame(FrameKind.TIDY, 0)
            self.node.tidy()
        for fsid, line in self._lines.items():
            if line.channel is None and not line.opening and now >= line.retry_at:
                self._open_later(fsid, line)
        self._look_at_cancels(now)
        if self._log.due:
            self._checkpoint()

    def _look_at_cancels(self, now: float) -> None:
        """Who is being killed or interrupted waits for the order no longer than HURRY_S."""
        cancels = self.node.cancels
        oldest = next(iter(cancels), 0)
        if oldest != self._cancel[0]:
            self._cancel = (oldest, now)
        elif oldest and now - self._cancel[1] >= HURRY_S:
            for fsid in {p.fsid for p in cancels.values()}:
                self._log.frame(FrameKind.HURRY, fsid)
                self.node.hurry(fsid)
            self._write()

    def _patience(self) -> float:
        """Milliseconds until something is due."""
        if self._again or any(self._may_speak(fsid, line) for fsid, line in self._lines.items()):
            return 0.0
        times = [self._cancel[1] + HURRY_S] if self.node.cancels else []
        times += [line.retry_at for line in self._lines.values() if line.channel is None and not line.opening]
        return max(0.0, min([self._tidy_at, *times]) - time.monotonic()) * 1000

    def _may_speak(self, fsid: int, line: Line) -> bool:
        """There is something to say, and vcsd takes it. Without a channel, or while vcsd takes no more, an event of poll(2) comes first: to
        look again and again would keep this processor, which vcsd may need, from everybody."""
        member = self.node.members.get(fsid)
        return member is not None and line.channel is not None and line.room and bool(member.space.out or line.out)

    def _serve_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            call()

    # --- the kernel -----------------------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        log, node, width = self._log, self.node, READ_FIRST
        while not log.overdue:
            slots = log.room(width)
            count = self._device.read(slots)
            slot = log.took(count)
            for at in range(count):
                node.take(slots[at], slot)
                slot += len(slots[at])
            if count < width:
                return
            width = READ

    def _write(self) -> None:
        """Write the answers. An error here means that the kernel speaks another version of the interface."""
        log, node = self._log, self.node
        writes, node.writes = node.writes, []
        while writes:
            some, writes = writes[:READ], writes[READ:]
            for write in some:
                log.mark(write.slot, Mark.ANSWERING)
            taken = self._device.write([write.record for write in some])
            for write in some[:taken]:
                log.mark(write.slot, Mark.DONE)
            writes = some[taken:] + writes
        if node.done:
            for slot in node.done:
                log.mark(slot, Mark.DONE)
            node.done.clear()

    def _checkpoint(self) -> None:
        receiving = [fsid for fsid, member in self.node.members.items() if member.receiving]
        if receiving and not self._log.overdue:
            return
        for fsid in receiving:
            self._hang_up(fsid)
            self.node.opened(fsid)
        state, pending = self.node.dump()
        for request, slot in zip(pending, self._log.checkpoint(state, [p.slot for p in pending]), strict=True):
            request.slot = slot

    # --- lockspaces -----------------------------------------------------------------------------------------------------------------------

    def _follow(self, wanted: Mapping[str, Membership]) -> None:
        node = self.node
        alive: dict[int, tuple[str, int]] = {}
        for name, membership in wanted.items():
            if not membership.lost:
                known = node.names.get(global_id(name), (name, 0))[1]
                alive[global_id(name)] = (name, membership.join_id or known)
        lost = {global_id(name) for name, m in wanted.items() if m.lost}
        for fsid in {*node.names, *node.strays, *node.lost, *lost} - alive.keys():
            if fsid in lost and fsid in node.lost:
                continue
            if fsid in node.strays and fsid not in node.names and fsid not in lost:
                continue  # its join is under way
            self._drop(fsid, fsid in lost)
        for fsid, (name, join_id) in alive.items():
            if node.names.get(fsid) == (name, join_id):
                self._lines.setdefault(fsid, Line(name))
                continue
            if not join_id:
                continue  # its first event has not begun
            if fsid in node.names:
                self._drop(fsid, False)
            self._log.frame(FrameKind.JOIN, fsid, f"{join_id} {name}".encode())
            node.join(fsid, name, join_id)
            self._lines[fsid] = Line(name)

    def _drop(self, fsid: int, lost: bool) -> None:
        self._hang_up(fsid)
        self._lines.pop(fsid, None)
        self._log.frame(FrameKind.DROP, fsid, b"lost" if lost else b"left")
        self.node.drop(fsid, lost)

    # --- channels -------------------------------------------------------------------------------------------------------------------------

    def _open_later(self, fsid: int, line: Line) -> None:
        """Ask vcsd for the channel, in a thread: files of our own go on meanwhile."""
        line.opening = True

        def work() -> None:
            channel: Channel | None = None
            try:
                channel = self._open(group_name(line.name))
            except (VcsError, OSError) as error:
                logger.debug("no channel of lockspace %s yet: %s", line.name, error)
            self._call(lambda: self._opened(fsid, line, channel))

        threading.Thread(target=work, name="plocks-open", daemon=True).start()

    def _opened(self, fsid: int, line: Line, channel: Channel | None) -> None:
        line.opening = False
        if self._lines.get(fsid) is not line:
            if channel is not None:
                channel.close()
            return
        if channel is None:
            line.retry_at = time.monotonic() + line.delay
            line.delay = min(line.delay * 2, RETRY_MAX_S)
            return
        line.delay = RETRY_S
        line.channel, line.fd, line.room = channel, channel.fileno(), True
        line.out.clear()
        self._by_fd[line.fd] = fsid
        self._poll.register(line.fd, select.POLLIN)
        self._log.frame(FrameKind.OPENED, fsid)
        self.node.opened(fsid)
        self._receive(fsid)

    def _hang_up(self, fsid: int) -> None:
        line = self._lines.get(fsid)
        if line is not None and line.channel is not None:
            self._poll.unregister(line.fd)
            del self._by_fd[line.fd]
            line.channel.close()
            line.channel, line.fd = None, -1
            line.retry_at = time.monotonic() + line.delay

    def _receive(self, fsid: int) -> None:
        channel = self._lines[fsid].channel
        if channel is None:
            return
        try:
            for _ in range(DELIVERIES):
                if self._log.overdue:
                    break
                what = channel.receive(0)
                if what is None:
                    return
                if isinstance(what, Event):
                    self._log.frame(FrameKind.DELIVERY, fsid, batch.pack_event(what.event, what.members))
                    channel.processed(what.event)
                else:
                    head = batch.delivery_head(what.sender, what.event, what.seq)
                    self._log.frame(FrameKind.DELIVERY, fsid, head + batch.pack(what.sent, what.messages))
                self.node.deliver(fsid, what)
            self._again.add(fsid)
        except ChannelClosed as error:
            logger.info("lockspace %s: %s", self._lines[fsid].name, error)
            self._hang_up(fsid)

    def _pump(self, fsid: int, line: Line) -> None:
        """Send what there is to say, and take what comes of it."""
        member = self.node.members.get(fsid)
        while member is not None and line.channel is not None and (member.space.out or line.out):
            line.out.extend(member.space.out)
            member.space.out.clear()
            try:
                if not line.push(line.channel, self._poll):
                    return
            except ChannelClosed as error:
                logger.info("lockspace %s: %s", line.name, error)
                self._hang_up(fsid)
                return
            self._receive(fsid)  # a flush may have read ahead
