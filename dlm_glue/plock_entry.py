# SPDX-License-Identifier: GPL-2.0-only
"""A file in the replicated state of POSIX locks, what an operation does to it, and both as plain lists for state transfer. Pure."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from dlm_glue.plock_ranges import File, Lock, Waiter
from dlm_glue.plock_wire import FL_CLOSE, Op, Verb
from vcs.errors import RemoteError

NO_ANSWER = 1 << 30
"A result that is not told to the kernel: it waits for none (any more)."
SOLO_FIRST = 64
SOLO_MAX = 8192
"So many operations of one node in a row, and a file that several used is that node's alone again; doubled each time."


class Result(NamedTuple):
    node: int
    ticket: int
    rv: int
    holder: Lock | None = None


class Queued(NamedTuple):
    node: int
    ticket: int
    op: Op


class Mode(IntEnum):
    SHARED = 0
    "Every member has the contents, every operation is an ordered message."
    OWNED = 1
    "One node alone uses it and decides by itself; only that node has the contents."
    REVOKED = 2
    "Another one uses it now: all wait for what the owner had."


@dataclass(slots=True)
class Entry:
    number: int
    mode: Mode
    node: int = 0
    "The owner, of an OWNED or REVOKED one."
    epoch: int = 0
    "Which ownership."
    file: File = field(default_factory=File)
    "Elsewhere than at the owner: what the ownership began with, until the owner has confirmed it."
    queue: list[Queued] = field(default_factory=list)
    "REVOKED: what came since, in order."
    uses: int = 0
    last: int = 0
    "Node of the last operation."
    solo: int = 0
    "Operations of ``last`` in a row."
    limit: int = SOLO_FIRST
    leaving: bool = False
    "At the owner: RELEASE is sent, so nothing is decided alone any more."
    seen_uses: int = -1
    "Local: ``uses`` at the last look for idle files."


def execute(file: File, node: int, ticket: int, op: Op) -> list[Result]:
    """Do one operation; what it means for whom, in order."""
    wanted = Lock(node, op.owner, op.pid, bool(op.ex), op.start, op.end)
    verb = op.verb
    if verb == Verb.LOCK:
        if not file.lock(wanted):
            if op.wait:
                file.waiters.append(Waiter(ticket, wanted))
                return []
            return [Result(node, ticket, -errno.EAGAIN)]
        done = [Result(node, ticket, 0)]
    elif verb == Verb.UNLOCK:
        file.unlock(node, op.owner, op.start, op.end)
        if op.flags & FL_CLOSE:
            done = [Result(node, w.ticket, NO_ANSWER) for w in file.cancel_all(node, op.owner)]
            done.append(Result(node, ticket, NO_ANSWER))
        else:
            done = [Result(node, ticket, 0)]
    elif verb == Verb.GET:
        holder = file.conflict(wanted)
        return [Result(node, ticket, 0 if holder is None else 1, holder)]
    else:
        waiter = file.cancel(wanted)
        if waiter is None:
            return [Result(node, ticket, -errno.ENOENT)]
        # The request first: whoever hears of the cancellation may send the same one again.
        return [Result(node, waiter.ticket, NO_ANSWER), Result(node, ticket, 0)]
    if file.waiters:
        done += [Result(w.lock.node, w.ticket, 0) for w in file.grant()]
    return done


def without_file(node: int, ticket: int, op: Op) -> Result:
    """What becomes of an operation, no LOCK, where the node can hold nothing and wait for nothing."""
    if op.verb == Verb.CANCEL:
        return Result(node, ticket, -errno.ENOENT)
    return Result(node, ticket, NO_ANSWER if op.verb == Verb.UNLOCK and op.flags & FL_CLOSE else 0)


# --- as lists -----------------------------------------------------------------------------------------------------------------------------


def file_tree(file: File) -> list[Any]:
    return [[list(held) for held in file.locks], [[w.ticket, list(w.lock)] for w in file.waiters]]


def tree_file(tree: Any) -> File:
    """Raises RemoteError."""
    try:
        locks, waiters = tree
        return File([_lock(held) for held in locks], [Waiter(int(ticket), _lock(wanted)) for ticket, wanted in waiters])
    except (TypeError, ValueError) as error:
        raise RemoteError(f"no locks of a file: {error}") from None


def _lock(values: Sequence[Any]) -> Lock:
    node, owner, pid, ex, start, end = values
    return Lock(int(node), int(owner), int(pid), bool(ex), int(start), int(end))


def entry_tree(entry: Entry, contents: bool = True) -> list[Any]:
    """All of it but what is local."""
    queue = [[q.node, q.ticket, list(q.op)] for q in entry.queue]
    numbers = [entry.number, int(entry.mode), entry.node, entry.epoch, entry.uses, entry.last, entry.solo, entry.limit]
    return [numbers, file_tree(entry.file) if contents else [[], []], queue]


def tree_entry(tree: Any) -> Entry:
    """Raises RemoteError."""
    try:
        (number, mode, node, epoch, uses, last, solo, limit), file, queue = tree
        ops = [Queued(int(n), int(ticket), Op(*map(int, op))) for n, ticket, op in queue]
        return Entry(int(number), Mode(mode), int(node), int(epoch), tree_file(file), ops, int(uses), int(last), int(solo), int(limit))
    except (TypeError, ValueError) as error:
        raise RemoteError(f"no file with locks: {error}") from None
