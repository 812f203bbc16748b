# SPDX-License-Identifier: GPL-2.0-only
"""A new dlm_glue takes over the POSIX locks of the one before: the same inputs again, then what was not answered is answered.

One doubt is left: an answer that was being written when the process died. A waiting request (F_SETLKW) is answered again; the kernel
finds nobody if it was answered. Others the kernel takes in its own order, so one answer too many or too few would wake the wrong
caller. There the callers are asked: who has got an answer does not sleep in the DLM.
"""

from __future__ import annotations

import logging
from collections import Counter

from dlm_glue.plock_device import Device
from dlm_glue.plock_log import Frame, FrameKind, Log, Mark
from dlm_glue.plock_node import Node, Write
from vcs import batch
from vcs.errors import RemoteError

logger = logging.getLogger("dlm_glue")


def restore(log: Log, me: int) -> Node:
    """The state that the log tells, with all answers in ``writes``; a new one if it tells none."""
    node = _restored(log, me) if log.valid else None
    if node is None:
        node = Node(me)
        log.checkpoint(node.dump()[0], [])
    return node


def _restored(log: Log, me: int) -> Node | None:
    try:
        state, records = log.kept()
        node = Node.load(state, [(r.slot, r.data) for r in records])
        for item in log.inputs():
            if isinstance(item, Frame):
                repeat(node, item)
            else:
                node.take(item.data, item.slot)
    except (RemoteError, KeyError, ValueError, TypeError, AttributeError) as error:
        logger.error("the log of POSIX locks is useless, locks of this node are lost: %r", error)
        return None
    if node.me != me:
        logger.error("the log of POSIX locks is of node %d, this is %d", node.me, me)
        return None
    node.writes = [w for w in node.writes if log.mark_of(w.slot) is not Mark.DONE]
    node.done.clear()
    return node


def repeat(node: Node, frame: Frame) -> None:
    """One input from the log."""
    match frame.kind:
        case FrameKind.JOIN:
            join_id, _, name = frame.data.decode().partition(" ")
            node.join(frame.fsid, name, int(join_id))
        case FrameKind.OPENED:
            node.opened(frame.fsid)
        case FrameKind.DELIVERY:
            what = batch.unpack(frame.data)
            if not isinstance(what, batch.Closed):
                node.deliver(frame.fsid, what)
        case FrameKind.TIDY:
            node.tidy()
        case FrameKind.DROP:
            node.drop(frame.fsid, frame.data == b"lost")
        case FrameKind.HURRY:
            node.hurry(frame.fsid)


def settle(node: Node, log: Log, device: Device) -> list[Write]:
    """Those answers of ``node.writes`` that were not written, in order. All requests that the kernel has must be in the log."""
    doubtful = {w.slot for w in node.writes if not w.pending.op.wait and log.mark_of(w.slot) is Mark.ANSWERING}
    if not doubtful:
        return node.writes
    # Of each process: how many of its threads sleep, and how many requests certainly wait.
    waiting = Counter(p.op.pid for p in node.pending.values())
    waiting.update(w.pending.op.pid for w in node.writes if w.slot not in doubtful)
    asleep = {w.pending.op.pid: 0 for w in node.writes if w.slot in doubtful}
    for pid in asleep:
        asleep[pid] = device.sleepers(pid)
    left: list[Write] = []
    # Answers are written in order: of the doubtful ones the first so many were, so the count goes from the last one.
    for write in reversed(node.writes):
        pid = write.pending.op.pid
        if write.slot in doubtful:
            if asleep[pid] <= waiting[pid]:
                log.mark(write.slot, Mark.DONE)
                continue
            waiting[pid] += 1
        left.append(write)
    left.reverse()
    return left
