# SPDX-License-Identifier: GPL-2.0-only
"""The BPF tools on a known workload: what they print is what was done, and as long as it took by this process's own clock. Runs as root
inside a virtual machine with the real DLM and the real switch (see test_bpf.py)."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kernel.contract_world import World
from tests.kernel.glue_world import GlueWorld, joining, lock, wait
from tests.kernel.guest_contract import KernelBackend
from vcs.model import Phase, event_text

TOOLS = Path(__file__).resolve().parents[2]
COMPILE_S = 180.0
"Until a tool traces: clang under emulation."
STOP_MS, START_MS, HELD_MS = 120, 250, 700
"What the workload waits for on purpose: it is what the tools have to find."


@dataclass
class Tool:
    """A running tool; ``lines`` is what it has printed so far."""

    name: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    begun: str = ""
    "A line whose end has not come yet."

    def take(self, text: str) -> None:
        *whole, self.begun = (self.begun + text).split("\n")
        self.lines += whole

    def until(self, *patterns: str, seconds: float = 20.0) -> str:
        """The first line that all patterns match, as it comes."""
        deadline = time.monotonic() + seconds
        assert self.process.stdout is not None
        while True:
            for line in self.lines:
                if all(re.search(p, line) for p in patterns):
                    return line
            ready, _, _ = select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))
            text = os.read(self.process.stdout.fileno(), 65536).decode() if ready else ""
            if not text:
                pytest.fail(f"{self.name} did not print {patterns}; it printed:\n" + "\n".join(self.lines))
            self.take(text)

    def end(self) -> str:
        """All of its output, after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, rest
        self.take(rest)
        output = "\n".join(self.lines)
        print(output)
        return output


@contextlib.contextmanager
def tracing(*commands: str) -> Iterator[list[Tool]]:
    """The tools, all of them attached."""
    tools = []
    try:
        for command in commands:
            name, *words = command.split()
            argv = [sys.executable, "-m", f"tools.{name}", *words]
            child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TOOLS)
            tools.append(Tool(name, child))
        for tool in tools:
            tool.until("^Tracing", seconds=COMPILE_S)
        yield tools
    finally:
        for tool in tools:
            tool.process.kill()
            tool.process.wait()


def milliseconds(since_ns: int) -> float:
    return (time.monotonic_ns() - since_ns) / 1e6


def test_vcssnoop_and_vcslat_tell_what_was_done() -> None:
    backend = KernelBackend()
    with tracing("vcssnoop", "vcslat -m") as (snoop, lat):
        world = World(backend)
        world.view()
        consumer = world.consumer("known", owner="workload")
        begun = time.monotonic_ns()
        world.stop(10, "known")
        time.sleep(STOP_MS / 1000)  # a consumer that takes its time
        consumer.ack(10, Phase.STOP)
        stopped = milliseconds(begun)
        starting = time.monotonic_ns()
        world.start(10, world.me, name="known")
        time.sleep(START_MS / 1000)
        consumer.ack(10, Phase.START)
        started = milliseconds(starting)
        world.finish(10, "known")
        whole = milliseconds(begun)
        snoop.until(" group_finish ")
        lines = [line.split() for line in snoop.end().splitlines()]
        report = lat.end()
    backend.clean()
    mine = [(line[4], " ".join(line[5:])) for line in lines if len(line) > 4 and line[3] == world.handle]
    assert [name for name, _ in mine].count("view_notified") == 1
    mine = [line for line in mine if line[0] != "view_notified"]  # comes when a worker comes to it
    assert [name for name, _ in mine] == [
        "cluster_add", "provider_attach", "view_install", "group_join",
        "group_stop", "group_ack", "group_start", "group_ack", "group_finish",
    ]  # fmt: skip
    assert "flags=quorate nr=2" in mine[2][1]
    assert mine[4][1].startswith("group=known event=0.10 phase=stop acked_event=-")
    assert "acked_phase=start state=joining err=0" in mine[7][1]
    assert {line[1] for line in lines if len(line) > 4 and line[4] == "group_stop"} == {str(os.getpid())}
    for kind, least, most in (("stop", STOP_MS, stopped), ("start", START_MS, started), ("recovery", STOP_MS + START_MS, whole)):
        part = report.split(f"cluster = {world.handle}, group = known, {kind}")[1]
        found = re.search(r"1 in all, mean (\d+), longest (\d+) msecs", part)
        assert found, report
        assert least - 1 <= int(found[2]) <= most + 1, (kind, most, report)
        bucket = re.search(r"(\d+) -> (\d+) +: 1 +\|\*{40}\|", part)
        assert bucket and int(bucket[1]) <= int(found[2]) <= int(bucket[2]), report


def test_vcsdlm_tells_a_stopped_lockspace_from_a_busy_lock(tmp_path: Path) -> None:
    world = GlueWorld(tmp_path)
    world.glue()
    with joining(world, "known") as creator:
        world.change("known", {1: 1})
        assert creator.wait(60) == 0
    with tracing("vcsdlm -m 0.001") as (tool,):
        holder = lock("known", "hold", "busy")
        assert holder.stdout is not None and holder.stdout.readline().startswith("granted")
        behind = lock("known", "hold", "busy")
        wait_for_request("busy")
        refused = lock("known", "try", "busy")
        assert refused.wait(30) == errno.EAGAIN
        time.sleep(HELD_MS / 1000)  # the lock is held so long
        holder.communicate("")
        assert behind.stdout is not None and behind.stdout.readline().startswith("granted")
        behind.communicate("")
        tool.until(rf" known +busy +EX +{refused.pid} .* 0.0 EAGAIN +-$")
        busy = tool.until(rf" known +busy +EX +{behind.pid} .* granted ").split()
        assert float(busy[6]) >= HELD_MS
        assert busy[7:] == ["0.0", "granted", "-"]

        world.stop("known")
        stopped = time.monotonic_ns()
        event = event_text(world.event)
        asking = lock("known", "hold", "late")
        wait_blocked(asking)
        time.sleep(HELD_MS / 1000)  # the lockspace is stopped so long
        least = milliseconds(stopped)
        world.start("known", {1: 1})
        assert asking.stdout is not None and asking.stdout.readline().startswith("granted")
        most = milliseconds(stopped)
        world.finish("known")
        late = tool.until(rf" known +late +EX +{asking.pid} .* granted ").split()
        asking.communicate("")
        tool.until(rf"\* finish, event {re.escape(event)}$")
        output = tool.end()
    assert HELD_MS <= float(late[6]) <= most
    assert HELD_MS <= float(late[7]) <= float(late[6])
    assert late[8:] == ["granted", event]
    told = [line.split("* ")[1] for line in output.splitlines() if " * " in line]
    assert told == [f"{what}, event {event}" for what in ("stop", "stop acknowledged", "start", "start acknowledged", "finish")]
    assert least < most
    assert world.process is not None
    world.process.terminate()
    assert world.process.wait(20) == 0


def wait_for_request(resource: str) -> None:
    """Until the DLM has a request that waits for ``resource``."""
    table = Path("/sys/kernel/debug/dlm/known")
    waiting = re.compile(rf'"{resource}".*?Waiting Queue *\n[0-9a-f]{{8}} ', re.S)
    wait(lambda: bool(waiting.search(table.read_text())), f"a request that waits for {resource}")


def wait_blocked(child: subprocess.Popen[str]) -> None:
    """Until a thread of ``child`` sleeps in the DLM, before a lockspace that is stopped."""

    def stacks() -> str:
        return "".join(path.read_text() for path in Path(f"/proc/{child.pid}/task").glob("*/stack"))

    wait(lambda: "dlm_user_request" in stacks(), "a thread in the DLM")
