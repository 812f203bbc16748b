# SPDX-License-Identifier: GPL-2.0-only
"""The log of POSIX locks: what a killed dlm_glue leaves is read whole, whatever it was doing."""

from __future__ import annotations

import os

import pytest

from dlm_glue.plock_log import HEADER, SOFT, Frame, FrameKind, Log, Mark, Record, boot_id
from dlm_glue.plock_restart import restore
from dlm_glue.plock_wire import RECORD, SIZE, VERSION
from tests.fakes.plock import FakeNode, Order, cancel, lock, unlock
from vcs.errors import VcsError

BOOT = bytes(16)


def record(number: int) -> bytes:
    return RECORD.pack(*VERSION, 1, 1, 0, 0, 9, 0, 0, 77, number, 0, 0, 1)


def filled(fd: int) -> Log:
    log = Log(os.dup(fd), BOOT)
    log.checkpoint(b"state", [])
    log.room(1)[0][:] = record(1)
    log.took(1)
    log.frame(FrameKind.DELIVERY, 77, b"x" * 100)
    log.room(2)[0][:] = record(2)
    log.took(1)
    return log


def test_inputs_come_back_in_their_order() -> None:
    fd = os.memfd_create("plock")
    log = filled(fd)
    log.mark(HEADER + SIZE * 0, Mark.OPEN)
    log.close()
    again = Log(fd, BOOT)
    assert again.valid
    assert again.kept() == (b"state", [])
    one, two, three = again.inputs()
    assert isinstance(one, Record) and one.data == record(1) and one.mark is Mark.OPEN
    assert two == Frame(FrameKind.DELIVERY, 77, b"x" * 100)
    assert isinstance(three, Record) and three.data == record(2)
    again.mark(three.slot, Mark.DONE)
    assert again.mark_of(three.slot) is Mark.DONE
    again.frame(FrameKind.TIDY, 0)
    again.close()


def test_a_torn_frame_is_nothing_and_stays_nothing() -> None:
    """Killed after the data, before the four bytes that make it count; the data looks like requests, and must not become some."""
    fd = os.memfd_create("plock")
    log = filled(fd)
    at = log._tail
    log.room(4)[1][:] = record(3)
    log.room(4)[2][:] = record(4)
    log.close()
    for _ in range(2):
        again = Log(os.dup(fd), BOOT)
        again.kept()
        assert len(list(again.inputs())) == 3
        assert again._tail == at
        again.close()
    os.close(fd)


def test_a_checkpoint_keeps_what_is_unanswered_and_counts_only_when_whole() -> None:
    fd = os.memfd_create("plock")
    log = filled(fd)
    slots = [slot for slot in range(log._begin, log._tail, SIZE) if bytes(log.record(slot)) == record(2)]
    [moved] = log.checkpoint(b"later", slots)
    assert bytes(log.record(moved)) == record(2)
    log.close()
    again = Log(fd, BOOT)
    assert again.kept() == (b"later", [Record(moved, Mark.OPEN, record(2))])
    assert list(again.inputs()) == []
    again.close()


def test_a_log_of_another_boot_or_of_nobody_is_empty() -> None:
    fd = os.memfd_create("plock")
    filled(fd).close()
    other = Log(fd, b"1" * 16)
    assert not other.valid
    assert restore(other, 1).pending == {}
    other.close()
    assert len(boot_id()) == 16


def test_two_do_not_use_one_log(tmp_path: os.PathLike[str]) -> None:
    log = Log.open(f"{tmp_path}/log", BOOT)
    with pytest.raises(VcsError, match="another dlm_glue"):
        Log.open(f"{tmp_path}/log", BOOT)
    assert os.stat(f"{tmp_path}/log").st_mode & 0o777 == 0o600
    log.close()


def test_it_goes_on_for_ever_in_two_areas() -> None:
    log = Log(os.memfd_create("plock"), BOOT)
    log.checkpoint(b"", [])
    for _ in range(3):
        while not log.due:
            log.frame(FrameKind.DELIVERY, 1, bytes(60_000))
        log.checkpoint(b"s", [])
        assert log._tail - log._begin < SOFT
    assert list(log.inputs()) == []
    log.close()


def test_left_is_how_many_records_come_before_the_next_checkpoint() -> None:
    log = Log(os.memfd_create("plock"), BOOT)
    log.checkpoint(b"s", [])
    log.took(log.left)
    assert log.left == 0 and not log.due
    log.took(1)
    assert log.left == 0 and log.due
    log.close()


@pytest.mark.parametrize("died", ["before", "after", "no"])
def test_an_answer_in_doubt_goes_to_its_own_caller(died: str) -> None:
    """dlm_glue dies while it answers: whether the kernel has the answer or not, each caller gets its own, once. The fake device refuses
    an answer to the wrong one."""
    order = Order()
    node = FakeNode(1, order, Log(os.memfd_create("plock"), BOOT))
    node.join(1)
    order.change((1,))
    node.open()

    def turn() -> None:
        while node.deliver() or node.send():
            pass

    turn()
    first = node.kernel.call(lock(1, 10, 0, 0))
    node.read()
    turn()
    node.answer()
    assert first.rv == 0
    calls = [
        node.kernel.call(op)
        for op in (unlock(1, 10, 0, 0), lock(1, 11, 0, 0, wait=False), lock(1, 12, 0, 0, wait=False), cancel(lock(1, 13, 0, 0)))
    ]
    node.read()
    turn()
    node.answer(2, die_before_write=died == "before", die_after_write=died == "after")
    node.restart()
    node.open()
    turn()
    node.answer()
    assert [c.rv for c in calls] == [0, 0, -11, -2]
    assert not node.kernel.received and not node.node.pending
    node.log.close()
