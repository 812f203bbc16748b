# SPDX-License-Identifier: GPL-2.0-only
"""The short way of a request on a file that this node alone uses: what plock_node.Node does with it, without its detours.

Such a request changes one file's list of locks, and its answer is due at once: nobody waits for that file, and no answer stands before it.
Whatever is not that plain is left to the Node, so this file decides nothing of its own; a test compares both on random requests. It is a
fifth of the work, and a file that one node uses costs little else.
"""

from __future__ import annotations

import select
import time

from dlm_glue.plock_device import Device
from dlm_glue.plock_entry import Mode
from dlm_glue.plock_log import Log, Mark
from dlm_glue.plock_node import Node
from dlm_glue.plock_ranges import Lock
from dlm_glue.plock_wire import REQUEST, Verb

# Looked up once: in an emulated machine each look into a class is felt.
LOCK, UNLOCK = int(Verb.LOCK), int(Verb.UNLOCK)
ANSWERING, DONE = int(Mark.ANSWERING), int(Mark.DONE)
OWNED = Mode.OWNED


def quick(node: Node, record: bytes | memoryview) -> bool:
    """Do it, if it is plain: then the answer is the record itself, with a result of 0. False: nothing was done."""
    verb, ex, flags, pid, rv, fsid, number, start, end, owner = REQUEST.unpack(record)
    member = node.members.get(fsid)
    if member is None or not member.ready or flags or rv or node.queues.get(fsid):
        return False
    space, me = member.space, node.me
    entry = space.entries.get(number)
    if entry is None or entry.mode is not OWNED or entry.node != me or entry.leaving:
        return False
    file = entry.file
    if file.waiters or number in space.inflight or number in space.held:
        return False
    locks = file.locks
    if verb == LOCK:
        if locks:
            return False
        locks.append(Lock(me, owner, pid, ex != 0, start, end))
    elif verb == UNLOCK:
        if len(locks) != 1:
            return False
        held = locks[0]
        if held.owner != owner or held.node != me or held.start < start or held.end > end:
            return False
        file.locks = []
    else:
        return False
    node.ticket += 1
    entry.uses += 1
    return True


def serve(poll: select.poll, device: Device, log: Log, node: Node, patience_ms: float) -> tuple[list[tuple[int, int]], bool]:
    """Answer plain requests until there is something else to do: what poll(2) said then, and whether a request was taken that leaves more
    to do. ``patience_ms``: until something is due."""
    number, until = device.fileno(), time.monotonic() + patience_ms / 1000
    asked, read, write, room, took, mark, now = poll.poll, device.read, device.write, log.room, log.took, log.mark, time.monotonic
    for _ in range(log.left):
        found = asked(patience_ms)
        if len(found) != 1 or found[0][0] != number:
            return found, False
        slots = room(1)
        if not read(slots):
            return [], False
        slot = took(1)
        if not quick(node, slots[0]):
            node.take(slots[0], slot)
            return [], True
        mark(slot, ANSWERING)
        write(slots)
        mark(slot, DONE)
        if now() >= until:
            return [], False
    return asked(patience_ms), False  # a checkpoint of the log is due
