# SPDX-License-Identifier: GPL-2.0-only
"""A child that outlives its parent: found again, left alone, started again with the same descriptors (SAFETY S15, S17)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.process.story import until
from vcs import child as child_module
from vcs.child import JOURNAL, OutlivingChild, journal_file, start_time, uevent_socket
from vcs.events import EventLog

SLEEPER = """
import os, signal, sys
journal = int(os.environ["VCS_JOURNAL_FD"])
os.pwrite(journal, b"born %d session %d\\n" % (os.getpid(), os.getsid(0)), os.fstat(journal).st_size)
signal.sigwait([signal.SIGTERM])
"""


def make(folder: Path, script: str = SLEEPER) -> OutlivingChild:
    argv = [sys.executable, "-c", script]
    return OutlivingChild("sleeper", argv, folder / "pid", {"VCS_JOURNAL_FD": journal_file(str(folder))}, EventLog(str(folder / "events")))


def journal(child: OutlivingChild) -> list[str]:
    return os.pread(child._fds["VCS_JOURNAL_FD"], 4096, 0).decode().splitlines()


def test_it_is_restarted_with_the_same_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "BACKOFF_S", 0.05)

    async def story() -> None:
        child = make(tmp_path)
        await child.start()
        first = child.pid
        await until(lambda: journal(child))
        assert f"session {first}" in journal(child)[0], "its own session: a signal to ours must not reach it"
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(journal(child)) == 2)
        assert child.pid != first and child.restarts == 1
        last = child.pid
        await child.stop()
        assert start_time(last) == 0 and not (tmp_path / "pid").exists()

    asyncio.run(story())


def test_one_that_lived_long_is_started_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "BACKOFF_S", 60.0)
    monkeypatch.setattr(child_module, "STABLE_S", 0.0)

    async def story() -> None:
        child = make(tmp_path)
        await child.start()
        await until(lambda: journal(child))
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: len(journal(child)) == 2)
        await child.stop()

    asyncio.run(story())


def test_a_new_parent_leaves_it_alone_and_keeps_its_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "BACKOFF_S", 0.05)

    async def story() -> None:
        one = make(tmp_path)
        await one.start()
        pid = one.pid
        await until(lambda: journal(one))
        await one.abandon()
        two = make(tmp_path)
        await two.start()
        assert two.pid == pid and journal(two)[0].startswith(f"born {pid} ")
        os.kill(pid, signal.SIGKILL)  # what the journal held is not lost with it
        await until(lambda: len(journal(two)) == 2)
        await two.stop()

    asyncio.run(story())


def test_what_both_knew_outlives_both(tmp_path: Path) -> None:
    """Parent and child are killed at once: the next pair finds the journal of this boot, and none of another."""
    (tmp_path / f"{JOURNAL}.another-boot").write_text("+ 1 online x\n")

    async def story() -> None:
        one = make(tmp_path)
        await one.start()
        first = one.pid
        await until(lambda: journal(one))
        os.kill(first, signal.SIGKILL)
        await one.abandon()
        two = make(tmp_path)
        await two.start()
        await until(lambda: len(journal(two)) == 2)
        assert [line.split()[1] for line in journal(two)] == [str(first), str(two.pid)]
        assert len(list(tmp_path.glob(f"{JOURNAL}.*"))) == 1
        await two.stop()

    asyncio.run(story())


def test_another_process_of_that_pid_is_not_taken_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "pid").write_text(json.dumps({"pid": os.getpid(), "start": start_time(os.getpid()) + 1, "fds": {}}))
        child = make(tmp_path)
        await child.start()
        assert child.pid != os.getpid()
        await child.stop()

    asyncio.run(story())


def test_one_that_cannot_live_is_not_restarted_in_a_loop(tmp_path: Path) -> None:
    async def story() -> None:
        child = make(tmp_path, "raise SystemExit(5)")
        await child.start()
        await asyncio.sleep(2.2)  # the time in which a loop would show
        assert child.restarts <= 2
        await child.stop()

    asyncio.run(story())


def test_it_hears_uevents() -> None:
    fd = uevent_socket()
    assert os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    os.close(fd)
