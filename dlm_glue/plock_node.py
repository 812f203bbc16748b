# SPDX-License-Identifier: GPL-2.0-only
"""All POSIX locks of this node: the kernel's requests of all lockspaces, and which answer goes back when. Pure.

The kernel finds the caller of a waiting request (F_SETLKW) by all fields of the record, so it may be answered at any time. All others of a
lockspace it takes in the order in which it handed them out, whatever the record says: an answer out of order would wake the wrong caller.
So they stand in a queue, and the first waits for its result.

Every input is in the log (plock_log.py) before it comes here; given the same inputs again, the same state comes out.
"""

from __future__ import annotations

import errno
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from dlm_glue.plock_entry import NO_ANSWER, Result
from dlm_glue.plock_member import Member
from dlm_glue.plock_ranges import Lock
from dlm_glue.plock_wire import FL_CLOSE, Op, Verb, answer, read_record
from vcs.batch import Batch, Event


class Row(NamedTuple):
    """A lock or a request, as ``dlm_tool plocks`` shows it."""

    number: int
    ex: bool
    start: int
    end: int
    nodeid: int
    pid: int
    owner: int
    rown: int
    "The node that alone uses the file, 0 if several do, -1 if that is being found out."
    waiting: bool

    def line(self) -> str:
        kind, end = "WR" if self.ex else "RD", " WAITING" if self.waiting else ""
        where = f"{self.number} {kind} {self.start}-{self.end} nodeid {self.nodeid} pid {self.pid}"
        return f"{where} owner {self.owner:x} rown {self.rown}{end}"


def _cancels(cancel: Op, op: Op) -> bool:
    """``op`` waits, and ``cancel`` takes it back."""
    return bool(op.wait) and op._replace(verb=cancel.verb, wait=cancel.wait) == cancel


@dataclass(slots=True)
class Pending:
    """A request of the kernel that is not answered."""

    ticket: int
    fsid: int
    op: Op
    slot: int
    "Where its record is in the log."
    result: Result | None = None


class Abandoned(NamedTuple):
    fsid: int
    op: Op
    before: list[Lock]
    "What its owner held of the range."


class Write(NamedTuple):
    slot: int
    record: bytes
    pending: Pending


class Node:
    def __init__(self, me: int) -> None:
        self.me = me
        self.members: dict[int, Member] = {}
        "Lockspaces by fsid."
        self.pending: dict[int, Pending] = {}
        self.queues: dict[int, deque[Pending]] = {}
        "Of each lockspace, requests that must be answered in their order."
        self.strays: dict[int, list[Pending]] = {}
        "Requests of lockspaces that nobody told us of yet."
        self.cancels: dict[int, Pending] = {}
        "Those of them that are cancellations: their callers cannot be killed."
        self.abandoned: dict[int, Abandoned] = {}
        "Requests that the kernel has taken back and the order has not."
        self.ticket = 0
        self.writes: list[Write] = []
        "Answers to be written, in this order."
        self.done: list[int] = []
        "Slots whose request needs no answer any more."
        self.names: dict[int, tuple[str, int]] = {}
        "Name of each lockspace, and which of this node's memberships in it."
        self.lost: set[int] = set()
        "Lockspaces that nobody governs any more."

    # --- inputs ---------------------------------------------------------------------------------------------------------------------------

    def take(self, record: bytes | memoryview, slot: int) -> int:
        """A request of the kernel; its lockspace."""
        fsid, op = read_record(record)
        self.ticket += 1
        pending = Pending(self.ticket, fsid, op, slot)
        self._enlist(pending)
        member = self.members.get(fsid)
        if fsid in self.lost:
            self._refuse(pending)
        elif member is None:
            self.strays.setdefault(fsid, []).append(pending)
        else:
            member.request(pending.ticket, op)
            if member.space.answers:
                self._collect(member)
        return fsid

    def _enlist(self, pending: Pending) -> None:
        self.pending[pending.ticket] = pending
        if not pending.op.wait and not (pending.op.verb == Verb.UNLOCK and pending.op.flags & FL_CLOSE):
            self.queues.setdefault(pending.fsid, deque()).append(pending)
            if pending.op.verb == Verb.CANCEL:
                self.cancels[pending.ticket] = pending

    def join(self, fsid: int, name: str, join_id: int) -> None:
        """The lockspace is joined anew: nothing is known of it."""
        self.members[fsid] = Member(self.me)
        self.names[fsid] = (name, join_id)
        self.lost.discard(fsid)
        for pending in self.strays.pop(fsid, ()):
            self.members[fsid].request(pending.ticket, pending.op)

    def opened(self, fsid: int) -> None:
        self.members[fsid].opened()

    def deliver(self, fsid: int, what: Batch | Event) -> None:
        member = self.members[fsid]
        if isinstance(what, Event):
            member.on_event(what.event, what.members)
        else:
            for seq, message in enumerate(what.messages, what.seq):
                member.on_message(what.event, seq, what.sender, message)
        self._collect(member)

    def tidy(self) -> None:
        for member in self.members.values():
            if member.ready:
                member.space.tidy(member.members)

    def drop(self, fsid: int, lost: bool) -> None:
        """The lockspace is left, or lost. Whoever still waits gets an error."""
        self.members.pop(fsid, None)
        self.strays.pop(fsid, None)
        self.names.pop(fsid, None)
        if lost:
            self.lost.add(fsid)
        else:
            self.lost.discard(fsid)
        for pending in [p for p in self.pending.values() if p.fsid == fsid]:
            self._refuse(pending)

    def _refuse(self, pending: Pending) -> None:
        """Nobody grants anything in its lockspace any more."""
        rv = {Verb.UNLOCK: 0, Verb.CANCEL: -errno.ENOENT}.get(Verb(pending.op.verb), -errno.EIO)
        self._result(Result(self.me, pending.ticket, rv))

    # --- without the order ----------------------------------------------------------------------------------------------------------------

    def hurry(self, fsid: int) -> None:
        """A cancellation has waited for long, since there is no quorum or no vcsd, and its caller cannot be killed. What stands before it
        in the queue is answered now, and so is the cancellation; whatever is granted later to a caller that is gone is given back."""
        queue = self.queues.get(fsid, deque())
        last = max((at for at, p in enumerate(queue) if p.op.verb == Verb.CANCEL), default=-1)
        for pending in [*queue][: last + 1]:
            if pending.result is not None:
                continue
            rv = 0
            if pending.op.verb == Verb.CANCEL:
                waits = next((p for p in self.pending.values() if p.fsid == fsid and _cancels(pending.op, p.op)), None)
                if waits is None:
                    rv = -errno.ENOENT
                else:
                    self._abandon(waits)
                    self._result(Result(self.me, waits.ticket, NO_ANSWER))
            elif pending.op.verb == Verb.LOCK:
                self._abandon(pending)
                rv = -errno.EAGAIN
            self._result(Result(self.me, pending.ticket, rv))

    def _abandon(self, pending: Pending) -> None:
        op, member = pending.op, self.members.get(pending.fsid)
        entry = member.space.entries.get(op.number) if member is not None else None
        held = [h for h in entry.file.locks if h.node == self.me and h.owner == op.owner] if entry is not None else []
        before = [
            h._replace(start=max(h.start, op.start), end=min(h.end, op.end)) for h in held if h.start <= op.end and op.start <= h.end
        ]
        self.abandoned[pending.ticket] = Abandoned(pending.fsid, op, sorted(before, key=lambda h: h.start))

    def _late(self, result: Result) -> None:
        """The order has decided on a request that nobody waits for: its owner gets back what it held, which it never knew to be more."""
        found = self.abandoned.pop(result.ticket, None)
        member = self.members.get(found.fsid) if found is not None else None
        if found is None or member is None or result.rv != 0:
            return
        op, at = found.op, found.op.start
        repair: list[Op] = []
        for held in found.before:
            if at < held.start:
                repair.append(op._replace(verb=Verb.UNLOCK, wait=0, start=at, end=held.start - 1))
            if not held.ex:
                repair.append(op._replace(ex=0, wait=0, start=held.start, end=held.end))
            at = held.end + 1
        if at <= op.end:
            repair.append(op._replace(verb=Verb.UNLOCK, wait=0, start=at))
        for each in repair:
            self.ticket += 1
            member.request(self.ticket, each)

    # --- answers --------------------------------------------------------------------------------------------------------------------------

    def _collect(self, member: Member) -> None:
        answers, member.space.answers = member.space.answers, []
        for result in answers:
            self._result(result)

    def _result(self, result: Result) -> None:
        pending = self.pending.get(result.ticket)
        if pending is None or pending.result is not None:
            self._late(result)
            return
        if result.rv == NO_ANSWER:
            del self.pending[result.ticket]
            self.done.append(pending.slot)
        elif pending.op.wait:
            self._answer(pending, result.rv, None)
        elif pending.op.verb == Verb.UNLOCK and pending.op.flags & FL_CLOSE:
            del self.pending[result.ticket]
            self.done.append(pending.slot)
        else:
            pending.result = result
            queue = self.queues[pending.fsid]
            while queue and (found := queue[0].result) is not None:
                self._answer(queue.popleft(), found.rv, found.holder)

    def _answer(self, pending: Pending, rv: int, holder: Lock | None) -> None:
        del self.pending[pending.ticket]
        self.cancels.pop(pending.ticket, None)
        self.writes.append(Write(pending.slot, answer(pending.fsid, pending.op, rv, holder, self.me), pending))

    # --- what is to be seen ---------------------------------------------------------------------------------------------------------------

    def rows(self, fsid: int) -> Iterator[Row]:
        """Locks and requests of a lockspace that this node knows of: of files that another node uses alone it knows no locks."""
        member = self.members.get(fsid)
        for entry in list(member.space.entries.values()) if member is not None else ():
            rown = (0, entry.node, -1)[entry.mode]
            for held in entry.file.locks:
                yield Row(entry.number, held.ex, held.start, held.end, held.node, held.pid, held.owner, rown, False)
            for waiter in entry.file.waiters:
                held = waiter.lock
                yield Row(entry.number, held.ex, held.start, held.end, held.node, held.pid, held.owner, rown, True)

    # --- checkpoint -----------------------------------------------------------------------------------------------------------------------

    def dump(self) -> tuple[bytes, list[Pending]]:
        """The state, and the requests whose records the log must keep, in order."""
        pending = list(self.pending.values())
        tree = {
            "me": self.me,
            "ticket": self.ticket,
            "names": [[fsid, name, join_id] for fsid, (name, join_id) in self.names.items()],
            "lost": sorted(self.lost),
            "members": [[fsid, member.tree()] for fsid, member in self.members.items()],
            "pending": [[p.ticket, p.fsid, p.result and [p.result.rv, p.result.holder]] for p in pending],
            "abandoned": [[ticket, found.fsid, found.op, found.before] for ticket, found in self.abandoned.items()],
            "strays": [[fsid, [p.ticket for p in strays]] for fsid, strays in self.strays.items()],
        }
        return json.dumps(tree, separators=(",", ":")).encode(), pending

    @classmethod
    def load(cls, data: bytes, records: list[tuple[int, bytes]]) -> Node:
        """``records``: slot and record of the requests that dump() named. Raises RemoteError, ValueError, KeyError, TypeError."""
        tree: Any = json.loads(data)
        node = cls(tree["me"])
        node.ticket = tree["ticket"]
        node.names = {fsid: (name, join_id) for fsid, name, join_id in tree["names"]}
        node.lost = set(tree["lost"])
        for (ticket, fsid, found), (slot, record) in zip(tree["pending"], records, strict=True):
            pending = Pending(ticket, fsid, read_record(record)[1], slot)
            if found:
                pending.result = Result(node.me, ticket, found[0], Lock(*found[1]) if found[1] else None)
            node._enlist(pending)
        node.members = {fsid: Member.from_tree(node.me, member) for fsid, member in tree["members"]}
        node.abandoned = {t: Abandoned(fsid, Op(*op), [Lock(*h) for h in held]) for t, fsid, op, held in tree["abandoned"]}
        node.strays = {fsid: [node.pending[t] for t in tickets] for fsid, tickets in tree["strays"]}
        return node
