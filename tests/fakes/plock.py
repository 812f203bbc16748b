# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's side of POSIX locks (fs/dlm/plock.c of 6.12) and a group's ordered messages, both without a kernel or a network."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from dlm_glue.plock_log import FrameKind, Log, Mark
from dlm_glue.plock_quick import quick
from dlm_glue.plock_restart import restore, settle
from dlm_glue.plock_wire import FL_CLOSE, RECORD, SIZE, VERSION, Op, Verb, read_record
from dlm_glue.state import global_id
from vcs import batch
from vcs.batch import Batch, Event

SPACE = "x"
FSID = global_id(SPACE)


@dataclass(slots=True, eq=False)
class Call:
    """A thread in the kernel."""

    op: Op
    rv: int | None = None
    "None: it sleeps."
    record: bytes = b""


@dataclass(slots=True)
class FakeKernel:
    """send_list and recv_list, and the rules by which an answer finds its caller. What the kernel would WARN about is an error here."""

    sent: deque[Call] = field(default_factory=deque)
    received: list[Call] = field(default_factory=list)

    def call(self, op: Op) -> Call:
        call = Call(op)
        self.sent.append(call)
        return call

    def read(self, slots: list[memoryview]) -> int:
        count = 0
        while self.sent and count < len(slots):
            call = self.sent.popleft()
            slots[count][:] = RECORD.pack(*VERSION, *call.op[:5], 0, 0, FSID, *call.op[5:])
            if call.op.flags & FL_CLOSE:
                call.rv = 0
            else:
                self.received.append(call)
            count += 1
        return count

    def write(self, records: Sequence[bytes | memoryview]) -> int:
        for record in records:
            self._one(record)
        return len(records)

    def _one(self, record: bytes | memoryview) -> None:
        assert len(record) == SIZE
        rv = RECORD.unpack(record)[9]
        fsid, op = read_record(record)
        assert fsid == FSID
        if op.wait:
            found = next((c for c in self.received if c.op.wait and c.op == op), None)
            if found is None:
                return
        else:
            found = next((c for c in self.received if not c.op.wait), None)
            if found is None:
                return
            same = (found.op.verb, found.op.number, found.op.owner) == (op.verb, op.number, op.owner)
            assert same, f"an answer out of order: {op} for {found.op}"
        self.received.remove(found)
        found.rv, found.record = rv, bytes(record)

    def cancelled(self, call: Call) -> None:
        """do_lock_cancel() has returned 0."""
        self.received.remove(call)
        call.rv = -4

    def sleepers(self, pid: int) -> int:
        return sum(c.op.pid == pid for c in [*self.sent, *self.received] if not c.op.flags & FL_CLOSE)

    def fileno(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        pass


@dataclass(slots=True)
class Order:
    """The group: one order of messages and events. A node that opens a channel gets what comes behind that place."""

    items: list[Event | Batch] = field(default_factory=list)
    event: int = 0
    seq: int = 0
    members: tuple[int, ...] = ()

    def change(self, members: tuple[int, ...]) -> None:
        self.event, self.seq, self.members = self.event + 1, 0, members
        self.items.append(Event(self.event, members))

    def say(self, node: int, message: bytes) -> None:
        if node in self.members:
            self.items.append(Batch(self.event, self.seq + 1, node, self.event, [message]))
            self.seq += 1


class FakeNode:
    """One machine: kernel, log, and a dlm_glue that does in steps what plock_loop.Plocks does in its thread."""

    def __init__(self, me: int, order: Order, log: Log) -> None:
        self.me, self.order, self.log = me, order, log
        self.kernel = FakeKernel()
        self.node = restore(log, me)
        self.at = -1
        "Next item of the order; -1: no channel."
        self.first: Event | None = None
        self.quick = 0
        "Requests that went the short way."
        self.unsent: deque[bytes] = deque()
        "vcsd has them; they outlive dlm_glue."

    def join(self, join_id: int) -> None:
        self.log.frame(FrameKind.JOIN, FSID, f"{join_id} {SPACE}".encode())
        self.node.join(FSID, SPACE, join_id)

    def open(self) -> None:
        self.log.frame(FrameKind.OPENED, FSID)
        self.node.opened(FSID)
        self.at = len(self.order.items)
        self.first = Event(self.order.event, self.order.members)
        self._say()

    def read(self) -> None:
        if self.me % 2 and not self.node.writes:
            self._read_quickly()
        slots = self.log.room(8)
        count = self.kernel.read(slots)
        slot = self.log.took(count)
        for at in range(count):
            self.node.take(slots[at], slot + at * SIZE)
        self._say()

    def _read_quickly(self) -> None:
        """Nodes of odd numbers do plain requests the short way, as plock_quick.serve() does."""
        while self.kernel.read(slots := self.log.room(1)):
            slot = self.log.took(1)
            if not quick(self.node, slots[0]):
                self.node.take(slots[0], slot)
                return
            self.log.mark(slot, Mark.ANSWERING)
            self.kernel.write([bytes(slots[0])])
            self.log.mark(slot, Mark.DONE)
            self.quick += 1

    def deliver(self) -> bool:
        """The next item of the order; False: there is none."""
        if self.at < 0:
            return False
        if self.first is not None:
            what: Event | Batch = self.first
            self.first = None
        elif self.at < len(self.order.items):
            what = self.order.items[self.at]
            self.at += 1
        else:
            return False
        if isinstance(what, Event):
            self.log.frame(FrameKind.DELIVERY, FSID, batch.pack_event(what.event, what.members))
        else:
            head = batch.delivery_head(what.sender, what.event, what.seq)
            self.log.frame(FrameKind.DELIVERY, FSID, head + batch.pack(what.sent, what.messages))
        self.node.deliver(FSID, what)
        self._say()
        return True

    def tidy(self) -> None:
        self.log.frame(FrameKind.TIDY, 0)
        self.node.tidy()
        self._say()

    def hurry(self) -> None:
        self.log.frame(FrameKind.HURRY, FSID)
        self.node.hurry(FSID)
        self._say()

    def _say(self) -> None:
        member = self.node.members.get(FSID)
        if member is not None and self.at >= 0:
            self.unsent.extend(member.space.out)
            member.space.out.clear()

    def send(self) -> bool:
        """One message takes its place in the order."""
        if not self.unsent:
            return False
        self.order.say(self.me, self.unsent.popleft())
        return True

    def answer(self, limit: int = 1000, die_before_write: bool = False, die_after_write: bool = False) -> None:
        """Write what is to be answered; it may die in the middle of an answer."""
        writes, self.node.writes = self.node.writes[:limit], self.node.writes[limit:]
        for write in writes:
            self.log.mark(write.slot, Mark.ANSWERING)
        if die_before_write:
            return
        self.kernel.write([w.record for w in writes])
        if die_after_write:
            return
        for write in writes:
            self.log.mark(write.slot, Mark.DONE)
        for slot in self.node.done:
            self.log.mark(slot, Mark.DONE)
        self.node.done.clear()

    def checkpoint(self) -> None:
        if any(m.receiving for m in self.node.members.values()) or self.node.writes:
            return
        state, pending = self.node.dump()
        for request, slot in zip(pending, self.log.checkpoint(state, [p.slot for p in pending]), strict=True):
            request.slot = slot

    def restart(self) -> None:
        """dlm_glue was killed; its successor has the log."""
        self.node = restore(self.log, self.me)
        self.at = -1
        self.first = None
        while self.kernel.sent:
            self.read()
        self.node.writes = settle(self.node, self.log, self.kernel)
        self.answer()
        self.checkpoint()


def lock(number: int, owner: int, start: int, end: int, ex: bool = True, wait: bool = True) -> Op:
    """What fcntl(F_SETLKW) or fcntl(F_SETLK) makes."""
    return Op(Verb.LOCK, int(ex), int(wait), 0, owner, number, start, end, owner)


def unlock(number: int, owner: int, start: int, end: int, close: bool = False) -> Op:
    return Op(Verb.UNLOCK, 0, 0, FL_CLOSE if close else 0, owner, number, start, end, owner)


def get(number: int, owner: int, start: int, end: int, ex: bool = True) -> Op:
    return Op(Verb.GET, int(ex), 0, 0, owner, number, start, end, owner)


def cancel(op: Op) -> Op:
    return op._replace(verb=Verb.CANCEL, wait=0)


class LiveDevice:
    """A FakeKernel that another thread polls: readable while requests wait."""

    def __init__(self, kernel: FakeKernel | None = None) -> None:
        self.kernel = kernel or FakeKernel()
        self._lock = threading.Lock()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.send(bytes(len(self.kernel.sent)))

    def call(self, op: Op) -> Call:
        with self._lock:
            call = self.kernel.call(op)
            self._theirs.send(b"\0")
        return call

    def cancelled(self, call: Call) -> None:
        with self._lock:
            self.kernel.cancelled(call)

    def fileno(self) -> int:
        return self._ours.fileno()

    def read(self, slots: list[memoryview]) -> int:
        with self._lock:
            count = self.kernel.read(slots)
            if count:
                self._ours.recv(count)
            return count

    def write(self, records: Sequence[bytes | memoryview]) -> int:
        with self._lock:
            return self.kernel.write(records)

    def sleepers(self, pid: int) -> int:
        with self._lock:
            return self.kernel.sleepers(pid)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
