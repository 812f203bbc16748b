# SPDX-License-Identifier: GPL-2.0-only
"""dlm_glue's hands and ears: writing and reading back, uevents, the journal, the lanes, the hardening of the process."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from dlm_glue.apply import Applier, ApplyError, Setup
from dlm_glue.journal import COMPACT_BYTES, Journal
from dlm_glue.journal import parse as parse_journal
from dlm_glue.lanes import Lanes
from dlm_glue.lockspace import OsTree, parse_addr_list, parse_status, scan, sockaddr
from dlm_glue.state import OFFLINE, ONLINE, AddComms, Answer, Clear, DropComms, Pending, Start, Stop, Teardown, global_id
from dlm_glue.uevents import Gfs2Recovery, LockspaceEvent, UeventReader, parse
from tests.fakes.dlm import PATHS, FakeDlm
from vcs import realtime

SETUP = Setup("lab", 1, {n: (f"10.0.0.{n}",) for n in (1, 2, 3)})


@pytest.fixture
def dlm() -> FakeDlm:
    return FakeDlm()


@pytest.fixture
def applier(dlm: FakeDlm) -> Applier:
    applier = Applier(dlm, SETUP, PATHS)
    applier.prepare()
    applier.add_comms(AddComms((2, 3)))
    return applier


def test_prepare_twice_changes_nothing(dlm: FakeDlm, applier: Applier) -> None:
    before = dict(dlm.comms)
    dlm.busy_options = True
    applier.prepare()
    assert dlm.comms == before
    assert scan(dlm, PATHS).local == 1
    assert scan(dlm, PATHS).complete == {2, 3}


def test_an_option_that_is_wrong_while_the_dlm_runs_is_refused(dlm: FakeDlm, applier: Applier) -> None:
    dlm.busy_options = True
    other = Applier(dlm, Setup("lab", 1, SETUP.addresses, port=1234), PATHS)
    with pytest.raises(ApplyError, match="tcp_port is '21064'") as caught:
        other.prepare()
    assert caught.value.errno == errno.EBUSY


def test_another_local_node_is_refused(dlm: FakeDlm, applier: Applier) -> None:
    with pytest.raises(ApplyError, match="is node 1, not 2"):
        Applier(dlm, Setup("lab", 2, SETUP.addresses), PATHS).prepare()


def test_without_the_dlm_the_remedy_is_named() -> None:
    dlm = FakeDlm()
    dlm.exists = lambda path: False  # type: ignore[method-assign]
    with pytest.raises(ApplyError, match="load the module dlm"):
        Applier(dlm, SETUP, PATHS).prepare()


@pytest.mark.parametrize("lies", ["nodeid", "weight", "id", "listing"])
def test_control_1_is_not_written_when_something_reads_back_wrong(dlm: FakeDlm, applier: Applier, lies: str) -> None:
    dlm.new_lockspace("x")
    read, listdir = dlm.read, dlm.listdir
    if lies == "listing":
        dlm.listdir = lambda path: ["1"] if path.endswith("x/nodes") else listdir(path)  # type: ignore[method-assign]
    else:
        dlm.read = lambda path: "7" if path.endswith(f"/{lies}") and "comms" not in path else read(path)  # type: ignore[method-assign]
    with pytest.raises(ApplyError):
        applier.start(Start("x", 1, (1, 2), ()))
    assert dlm.lockspaces["x"].stopped


def test_start_removes_what_the_record_does_not_explain(dlm: FakeDlm, applier: Applier) -> None:
    dlm.new_lockspace("x")
    applier.start(Start("x", 1, (1, 2, 3), ()))
    applier.stop(Stop("x"))
    two = dlm.spaces["x"]["2"]
    applier.start(Start("x", 2, (1, 2, 3), (1, 2)))
    assert dlm.spaces["x"]["2"] is two
    assert dlm.log[-2] == ("left", "x", 3)


def test_start_without_a_comm_is_refused(dlm: FakeDlm, applier: Applier) -> None:
    dlm.new_lockspace("x")
    applier.drop_comms(DropComms((2,)))
    with pytest.raises(ApplyError, match="no comms/2"):
        applier.start(Start("x", 1, (1, 2), ()))
    assert dlm.violations == []


def test_stop_is_read_back(dlm: FakeDlm, applier: Applier) -> None:
    dlm.new_lockspace("x")
    applier.start(Start("x", 1, (1,), ()))
    dlm.recover("x", 0xFF)
    real = dlm.write
    dlm.write = lambda path, data: None if path.endswith("control") else real(path, data)  # type: ignore[method-assign]
    with pytest.raises(ApplyError, match="recover_status ff after a stop"):
        applier.stop(Stop("x"))
    applier.stop(Stop("gone"))


def test_teardown_and_clear_can_be_repeated(dlm: FakeDlm, applier: Applier) -> None:
    dlm.new_lockspace("x")
    applier.start(Start("x", 1, (1, 2), ()))
    for _ in range(2):
        applier.clear(Clear("x", (2,)))
    for _ in range(2):
        applier.teardown(Teardown("x"))
    assert dlm.spaces == {}
    assert dlm.lockspaces["x"].stopped
    applier.answer(Answer("x", Pending(1, ONLINE, "x"), -5))
    assert dlm.lockspaces == {}


def test_a_half_made_comm_is_made_anew(dlm: FakeDlm, applier: Applier) -> None:
    dlm.fail = lambda op, path: errno.ENOMEM if path.endswith("3/addr") else 0
    applier.drop_comms(DropComms((3,)))
    with pytest.raises(OSError):
        applier.add_comms(AddComms((3,)))
    assert scan(dlm, PATHS).complete == {2}
    dlm.fail = lambda op, path: 0
    applier.add_comms(AddComms((3,)))
    assert scan(dlm, PATHS).complete == {2, 3}


def test_sockaddr() -> None:
    four, six = sockaddr("10.1.2.3"), sockaddr("fd00::1")
    assert len(four) == len(six) == 128
    assert four[:8] == socket.AF_INET.to_bytes(2, "little") + bytes([0, 0, 10, 1, 2, 3])
    assert six[8:24] == bytes.fromhex("fd000000000000000000000000000001")
    assert parse_addr_list("AF_INET\t10.1.2.3\nAF_INET6\tfd00:0000:0000:0000:0000:0000:0000:0001\n") == ("10.1.2.3", "fd00::1")
    assert parse_status("ff") == 255
    assert parse_status("") == 0


def test_global_id_is_the_one_of_dlm_controld() -> None:
    """dlm_controld 4.2.0 gave this one to lockspace gfs: its checksum covers the terminating NUL."""
    assert global_id("gfs") == 0x3DF8322A


def test_os_tree_on_a_real_directory(tmp_path: Path) -> None:
    tree = OsTree()
    tree.mkdir(f"{tmp_path}/d")
    with pytest.raises(FileExistsError):
        tree.mkdir(f"{tmp_path}/d")
    with pytest.raises(FileNotFoundError):
        tree.write(f"{tmp_path}/d/f", b"1")
    (tmp_path / "d/f").write_text("")
    tree.write(f"{tmp_path}/d/f", b"12\n")
    assert tree.read(f"{tmp_path}/d/f") == "12"
    assert tree.listdir(str(tmp_path)) == ["d"]
    assert tree.exists(f"{tmp_path}/d")
    assert not tree.exists(f"{tmp_path}/d/f")
    with pytest.raises(OSError, match="not empty"):
        tree.rmdir(f"{tmp_path}/d")


# --- uevents --------------------------------------------------------------------------------------------------------------------------


def datagram(head: str, **values: str) -> bytes:
    return b"\0".join([head.encode(), *[f"{k}={v}".encode() for k, v in values.items()], b""])


def test_parse_uevents() -> None:
    online = datagram("online@/kernel/dlm/home", ACTION="online", DEVPATH="/kernel/dlm/home", SUBSYSTEM="dlm", LOCKSPACE="home", SEQNUM="9")
    assert parse(online) == LockspaceEvent("online", "home")
    assert parse(online.replace(b"online", b"offline")) == LockspaceEvent("offline", "home")
    assert parse(online.replace(b"online", b"add")) is None
    assert parse(online.replace(b"SUBSYSTEM=dlm", b"SUBSYSTEM=xyz")) is None
    done = datagram("change@/fs/gfs2/lab:home", SUBSYSTEM="gfs2", LOCKTABLE="lab:home", JID="2", RECOVERY="Done")
    assert parse(done) == Gfs2Recovery("lab:home", 2, "Done")
    assert parse(datagram("change@/fs/gfs2/lab:home", SUBSYSTEM="gfs2", RECOVERY="Failed")) == Gfs2Recovery("lab:home", -1, "Failed")
    for nonsense in (b"", b"\0", b"libudev\0\xfe\xed", b"@", b"online@/kernel/dlm/x\0SUBSYSTEM=dlm\0LOCKSPACE=\0", b"\xff" * 100):
        assert parse(nonsense) is None


def test_only_the_kernel_is_believed() -> None:
    class Sock:
        def __init__(self) -> None:
            self.queue = [
                (datagram("online@/kernel/dlm/a", SUBSYSTEM="dlm", LOCKSPACE="a"), (4711, 1)),
                (datagram("online@/kernel/dlm/b", SUBSYSTEM="dlm", LOCKSPACE="b"), (0, 2)),
                (datagram("online@/kernel/dlm/c", SUBSYSTEM="dlm", LOCKSPACE="c"), (0, 1)),
            ]

        def setblocking(self, flag: bool) -> None:
            assert not flag

        def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
            if not self.queue:
                raise BlockingIOError
            return self.queue.pop(0)

    kept: list[LockspaceEvent] = []
    assert UeventReader(Sock()).read(kept.append) == [LockspaceEvent("online", "c")]  # type: ignore[arg-type]
    assert kept == [LockspaceEvent("online", "c")]


# --- the journal ----------------------------------------------------------------------------------------------------------------------


def test_journal_over_restarts() -> None:
    fd = os.memfd_create("j")
    first = Journal(os.dup(fd))
    a, b, c = first.add(ONLINE, "a"), first.add(ONLINE, "b c"), first.add(OFFLINE, "a")
    assert a is not None
    assert b is not None
    assert c is not None
    assert first.add(ONLINE, "a") is None, "heard twice"
    first.answering(a)
    second = Journal(os.dup(fd))
    assert second.pending == (b, c), "one that was about to be answered counts as answered"
    second.answering(b)
    second.answered(b)
    d = second.add(ONLINE, "d")
    assert d is not None
    assert d.seq > c.seq
    os.pwrite(fd, b"+ 99 onl", os.fstat(fd).st_size)
    third = Journal(os.dup(fd))
    assert third.pending == (c, d)
    e = third.add(ONLINE, "e")
    assert Journal(os.dup(fd)).pending == (c, d, e)


def test_journal_parser_survives_nonsense() -> None:
    assert parse_journal(b"") == (0, ())
    assert parse_journal(b"\xff\n+ x online a\n+ 1 upline a\n+ 2 online \n? y\n! 7\n+ 3 online a") == (0, ())


def test_journal_is_bounded() -> None:
    fd = os.memfd_create("j")
    journal = Journal(fd)
    seq = 0
    for _ in range(COMPACT_BYTES // 10):
        pending = journal.add(ONLINE, "x")
        assert pending is not None
        assert pending.seq > seq
        seq = pending.seq
        journal.answering(pending)
        journal.answered(pending)
        assert os.fstat(fd).st_size < COMPACT_BYTES + 200


# --- the process ----------------------------------------------------------------------------------------------------------------------


def test_lanes_run_side_by_side_and_in_order() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        lanes = Lanes(loop)
        blocked, done, order = threading.Event(), asyncio.Event(), list[str]()
        lanes.submit("x", lambda: (blocked.wait(10), order.append("x1"))[0], lambda error: None)  # type: ignore[arg-type,func-returns-value]
        lanes.submit("x", lambda: order.append("x2"), lambda error: done.set())
        other: asyncio.Future[BaseException | None] = loop.create_future()
        lanes.submit("y", lambda: 1 // 0, other.set_result)  # type: ignore[arg-type]
        assert isinstance(await asyncio.wait_for(other, 5), ZeroDivisionError)
        assert order == []
        blocked.set()
        await asyncio.wait_for(done.wait(), 5)
        assert order == ["x1", "x2"]
        lanes.close()

    asyncio.run(story())


def test_realtime_says_what_it_could_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (only,) = realtime.setup()
    assert not only.ok
    assert "not root" in only.detail


def test_realtime_reports_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def refused() -> None:
        raise PermissionError(errno.EPERM, "no")

    for name in ("_small_stacks", "_lock_memory", "_io_flusher", "_oom"):
        monkeypatch.setattr(realtime, name, refused if name == "_oom" else lambda: None)
    monkeypatch.setattr(realtime, "_scheduler", lambda reset: None)
    steps = {s.name: s for s in realtime.setup()}
    assert not steps["oom_score_adj"].ok
    assert all(s.ok for n, s in steps.items() if n != "oom_score_adj")
