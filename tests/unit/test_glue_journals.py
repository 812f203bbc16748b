# SPDX-License-Identifier: GPL-2.0-only
"""When a lost race for a dead journal is cut short, and above all when it is not."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path

from dlm_glue.gfs2 import Journals
from dlm_glue.journals import RETRY_S, TRIES_MAX, Watch, dropped, reported, started, stopped
from dlm_glue.lanes import Lanes
from vcs.events import EventLog

Reports = Sequence[tuple[str, int, bool]]


def failure(members: int = 1) -> Watch:
    watch = stopped(None, "0", True)
    assert watch is not None
    return started(dropped(watch, members))


def test_a_lost_race_is_tried_again_until_our_kernel_has_seen_it_clean() -> None:
    watch, again = reported(failure(), 2, False)
    assert again and not watch.free
    watch, again = reported(watch, 2, True)
    assert watch.free and not again


def test_who_replayed_itself_leaves_it_to_the_kernel() -> None:
    watch, again = reported(failure(), 2, True)
    assert not watch.free and not again


def test_every_dead_journal_counts() -> None:
    watch = failure(2)
    for jid, done in ((1, False), (1, True), (1, True)):
        watch, _ = reported(watch, jid, done)
    assert not watch.free, "one of two"
    watch, _ = reported(watch, 2, True)
    assert watch.free


def test_a_clean_leaver_among_the_dropped_leaves_it_to_the_kernel() -> None:
    watch = failure(2)
    for done in (False, True):
        watch, _ = reported(watch, 2, done)
    assert not watch.free


def test_nothing_is_given_free_between_stop_and_start() -> None:
    watch, _ = reported(failure(), 2, False)
    halted = stopped(watch, "1", False)
    assert halted is not None
    late, again = reported(halted, 2, True)
    assert not late.free and not again and not late.clean, "a word from before the stop is not counted"


def test_a_second_failure_in_the_middle_needs_both_journals() -> None:
    watch, _ = reported(failure(), 2, False)
    halted = stopped(watch, "1", False)
    assert halted is not None
    second = started(dropped(halted, 1))
    second, _ = reported(second, 1, True)
    assert not second.free
    second, _ = reported(second, 2, True)
    assert second.free


def test_a_late_word_about_an_old_failure_is_never_taken_for_the_next() -> None:
    assert stopped(None, "0", False) is None
    assert stopped(failure(), "0", False) is None


def test_blocked_from_before_we_looked_is_the_kernels() -> None:
    assert stopped(None, "1", True) is None
    assert stopped(None, "", True) is None and stopped(failure(), "", True) is None


def test_tries_end() -> None:
    watch = failure()
    for _ in range(TRIES_MAX):
        watch, again = reported(watch, 2, False)
        assert again
    assert not reported(watch, 2, False)[1]


class FakeGfs2:
    """lock_module of one mounted file system: what is written, and what ``block`` reads."""

    def __init__(self) -> None:
        self.block = "0"
        self.writes: list[tuple[str, str]] = []
        self.busy = 0

    def read(self, path: str) -> str:
        name = path.removeprefix("/sys/fs/gfs2/demo:shared/lock_module/")
        if name not in ("block", "jid"):
            raise FileNotFoundError(2, "no such file", path)
        return self.block if name == "block" else "0"

    def write(self, path: str, data: bytes) -> None:
        if self.busy:
            self.busy -= 1
            raise OSError(errno.EBUSY, "busy", path)
        self.writes.append((path.removeprefix("/sys/fs/gfs2/demo:shared/lock_module/"), data.decode()))

    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def listdir(self, path: str) -> list[str]:
        return []

    def exists(self, path: str) -> bool:
        return False


def carried_out(
    tmp_path: Path, reports: Reports, space: str = "shared", busy: int = 0, before: Reports = ()
) -> list[tuple[str, str]]:
    """What is written when GFS2 has just said ``before``, a member of ``space`` was dropped, and GFS2 then reports so. 0 is ours."""
    tree = FakeGfs2()
    tree.busy = busy

    async def story() -> None:
        loop = asyncio.get_running_loop()
        lanes = Lanes(loop)
        journals = Journals("demo", tree, EventLog(str(tmp_path / "events.jsonl"), "n", "t"))
        journals.attach(loop, lanes)
        for report in before:
            journals.reported(*report)
        journals.stopping(space)
        journals.dropping(space, 1)
        journals.starting(space)
        for report in reports:
            journals.reported(*report)
            await asyncio.sleep(8 * RETRY_S)
        idle = loop.create_future()
        lanes.submit(space, lambda: None, idle.set_result)
        await idle
        lanes.close()

    asyncio.run(story())
    return tree.writes


def test_what_is_written(tmp_path: Path) -> None:
    lost = [("demo:shared", 2, False), ("demo:shared", 2, True)]
    assert carried_out(tmp_path, lost) == [("recover", "2"), ("block", "0")]
    assert carried_out(tmp_path, lost, busy=2) == [("recover", "2"), ("block", "0")], "the kernel was not ready for a try yet"
    assert not carried_out(tmp_path, [("demo:shared", 2, True)])
    assert not carried_out(tmp_path, [("other:shared", 2, False), ("other:shared", 2, True)])
    assert not carried_out(tmp_path, [("demo:other", 2, False), ("demo:other", 2, True)], space="other"), "no such file system"


def test_what_this_nodes_own_mount_says_is_about_nobody_else(tmp_path: Path) -> None:
    """A member dies just after this node has mounted: the second is spared all the same. Its own journal is not taken for the dead one's,
    and what was said a moment ago of another's leaves it to the kernel."""
    lost = [("demo:shared", 2, False), ("demo:shared", 2, True)]
    assert carried_out(tmp_path, lost, before=[("demo:shared", 0, True)]) == [("recover", "2"), ("block", "0")]
    assert carried_out(tmp_path, [("demo:shared", 2, False), ("demo:shared", 0, True)]) == [("recover", "2")]
    assert not carried_out(tmp_path, lost, before=[("demo:shared", 1, True)])
