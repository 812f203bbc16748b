# SPDX-License-Identifier: GPL-2.0-only
"""dlm_glue against the real DLM and the real switch, on one node; run inside a virtual machine (see test_glue.py)."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlm_glue.state import global_id
from tests.kernel.glue_world import CONFIG, DLM, HANDLE, GlueWorld, events, joining, kernel_log, lock, nodes, status, wait
from vcs.model import Phase


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlueWorld]:
    w = GlueWorld(tmp_path_factory.mktemp("glue"))
    w.glue()
    yield w
    assert w.process is not None
    w.process.terminate()
    assert w.process.wait(10) == 0


def join(world: GlueWorld, name: str) -> tuple[float, float]:
    with joining(world, name) as process:
        took = world.change(name, {1: 1})
        assert process.wait(30) == 0, process.stderr and process.stderr.read()
    return took


def leave(world: GlueWorld, name: str) -> None:
    process = lock(name, "release")
    world.port.hints()
    wait(lambda: world.group(name).state.name == "LEAVING", "leave asked for")
    world.stop(name)
    assert (DLM / name).is_dir(), "the leave was answered before its time"
    world.left(name)
    assert process.wait(30) == 0, process.stderr and process.stderr.read()
    wait(lambda: not (DLM / name).exists(), "lockspace is gone")
    assert not (CONFIG / "spaces" / name).exists()


def test_set_up(world: GlueWorld) -> None:
    assert (CONFIG / "cluster_name").read_text().strip() == "lab"
    assert (CONFIG / "recover_callbacks").read_text().strip() == "1"
    assert (CONFIG / "comms/1/local").read_text().strip() == "1"
    assert "10.77.0.1" in (CONFIG / "comms/1/addr_list").read_text()
    stat = Path(f"/proc/{world.process.pid if world.process else 0}")
    assert "VmLck:\t       0" not in (stat / "status").read_text(), "memory is not locked"
    assert (stat / "oom_score_adj").read_text().strip() == "-1000"
    fields = (stat / "stat").read_text().rpartition(")")[2].split()
    assert fields[38] == "2", "SCHED_RR"


def test_join_stop_start_leave(world: GlueWorld) -> None:
    took = join(world, "one")
    assert status("one") == 0xFF
    assert int((DLM / "one/id").read_text()) == global_id("one")
    assert nodes("one") == {"1"}
    again = [world.change("one", {1: 1}) for _ in range(5)]
    print(f"join: stop {took[0]:.0f} ms, start {took[1]:.0f} ms; again: {[(round(a), round(b)) for a, b in again]}")
    world.stop("one")
    assert status("one") == 0, "recover_status is reset by a stop"
    world.start("one", {1: 1})
    world.finish("one")
    leave(world, "one")
    names = [e["event"] for e in events() if e.get("lockspace") == "one"]
    assert names[:3] == ["ls_online", "ls_started", "ls_joined"]
    assert names[-3:] == ["ls_offline", "ls_stopped", "ls_left"]


def test_locks(world: GlueWorld) -> None:
    join(world, "two")
    holder = lock("two", "hold", "r")
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline().startswith("granted")
    assert lock("two", "try", "r").wait(30) == 11
    counters = [lock("two", "count", "c", "50") for _ in range(2)]
    numbers = [int(c.stdout.readline().split()[1]) for c in counters if c.stdout is not None]
    assert max(numbers) == 100
    # A lock request that is made while the lockspace is stopped waits, and goes on after the start.
    world.stop("two")
    holder.stdin.close()
    waiting = lock("two", "try", "other")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1.0)
    world.start("two", {1: 1})
    world.finish("two")
    assert waiting.wait(30) == 0
    assert holder.wait(30) == 0
    for c in counters:
        c.communicate(timeout=30)
        assert c.returncode == 0
    leave(world, "two")


def test_refused_join(world: GlueWorld) -> None:
    process = lock("three", "create")
    wait(lambda: world.has_group("three"), "group asked for")
    world.port.group_left(HANDLE, world.session, "dlm:three", errno.EACCES)
    assert process.wait(30) == 1
    assert process.stderr is not None
    assert "EIO" in process.stderr.read()
    wait(lambda: not (DLM / "three").exists(), "lockspace is gone")
    join(world, "three")
    leave(world, "three")


def test_a_killed_glue_is_replaced_under_a_running_lockspace(world: GlueWorld) -> None:
    join(world, "four")
    holder = lock("four", "hold", "r")
    assert holder.stdout is not None
    assert holder.stdout.readline().startswith("granted")
    world.kill()
    wait(lambda: world.group("four").orphan_since_ms > 0, "group is an orphan")
    assert lock("four", "try", "r").wait(30) == 11, "locking goes on without dlm_glue"
    late = lock("five", "create")
    wait((DLM / "five").is_dir, "a join while there is no dlm_glue")
    world.glue()
    world.change("four", {1: 1})
    assert lock("four", "try", "r").wait(30) == 11, "the lock is still held"
    wait(lambda: world.has_group("five"), "the journalled join is taken up")
    world.change("five", {1: 1})
    assert late.wait(30) == 0
    assert holder.stdin is not None
    holder.stdin.close()
    assert holder.wait(30) == 0
    leave(world, "five")
    leave(world, "four")


def test_a_member_that_fails_is_failed_for_the_kernel(world: GlueWorld) -> None:
    """Node 2 is in the view and in the lockspace but does not exist: recovery with it hangs, its failure ends that."""
    join(world, "six")
    world.members[2] = 0x2222
    world.view()
    wait((CONFIG / "comms/2").is_dir, "comms/2")
    world.stop("six")
    world.start("six", {1: 1, 2: 2}, wait_for_ack=False)
    wait(lambda: nodes("six") == {"1", "2"}, "nodes/2")
    assert "10.77.0.2" in (CONFIG / "comms/2/addr_list").read_text()
    assert not world.acked("six", Phase.START)
    del world.members[2]
    world.view()
    stopped = world.stop("six")
    assert (CONFIG / "comms/2").is_dir(), "it may still be readmitted"
    started = world.start("six", {1: 1})
    world.finish("six")
    assert not (CONFIG / "comms/2").exists()
    assert nodes("six") == {"1"}
    assert status("six") == 0xFF
    assert "six: remove member 2" in kernel_log()
    print(f"abort of a hanging recovery: stop {stopped:.0f} ms, start without the dead {started:.0f} ms")
    leave(world, "six")


def test_dlm_controld_is_not_fought(world: GlueWorld) -> None:
    """Nor another dlm_glue, which answers dlm_tool at the same name."""
    from dlm_glue.process import refuse_dlm_controld
    from vcs.errors import VcsError

    with pytest.raises(VcsError, match="another dlm_glue, runs"):
        refuse_dlm_controld()
    world.kill()
    refuse_dlm_controld()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("\0dlmc_sock")
        s.listen()
        with pytest.raises(VcsError, match="dlm_controld, or another"):
            refuse_dlm_controld()
    world.glue()
