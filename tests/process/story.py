# SPDX-License-Identifier: GPL-2.0-only
"""What the process tests are told with: nodes on 127.0.0.x with a userland switch each, a consumer that acknowledges, a power switch.

Engines, sockets, disks, fence agents and (for :class:`DaemonNode`) processes are real; the kernel's switch is tests/fakes/switch.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge.component import Component
from membership.registry import factory
from tests.fakes.switch import FakeSwitch
from tests.fakes.switch_port import FakePort
from tests.fakes.switch_remote import VARIABLE, SwitchServer
from vcs import events
from vcs.config.model import ClusterConfig, FencingConfig, LeaseConfig, NodeConfig, TotemConfig
from vcs.errors import SwitchError
from vcs.model import Group, GroupFlags, GroupState, Level, Phase

ROOT = Path(__file__).resolve().parents[2]
NEEDS = GroupFlags.NEEDS_FENCE | GroupFlags.PERSISTENT


def free_port() -> int:
    """A UDP port that is free on the loopback addresses we use."""
    for _ in range(100):
        port = random.randrange(20000, 32000)
        with contextlib.ExitStack() as stack:
            try:
                for last in (1, 2, 3):
                    s = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    s.bind((f"127.0.0.{last}", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


async def until(what: Callable[[], object], timeout_s: float = 20.0, on_failure: Callable[[], object] = lambda: "") -> None:
    """Wait until ``what()`` is true; the assertion shows ``on_failure()``."""
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, f"not within {timeout_s} s; {on_failure()}"
        await asyncio.sleep(0.02)


class Consumer:
    """A consumer in a group: acknowledges every phase at once, and writes down what it saw."""

    def __init__(self, switch: FakeSwitch, handle: str, group: str, flags: GroupFlags = NEEDS) -> None:
        self.seen: list[tuple[str, int, tuple[int, ...], int]] = []
        "(phase, event, members, CLOCK_BOOTTIME in ns)"
        self.group_name = group
        self._handle = handle
        self._port: FakePort = switch.consumer()
        self._loop = asyncio.get_running_loop()
        self._fd = self._port.hints_fd()
        self._loop.add_reader(self._fd, self._step)
        self._session = self._port.join(handle, group, Level.LOCK_MANAGER, flags, "test").session
        self._last = (0, Phase.NONE)
        self.left = False

    def group(self) -> Group | None:
        with contextlib.suppress(SwitchError):
            return self._port.group(self._handle, self.group_name)
        return None

    def running_on(self) -> list[int]:
        """The members of the last finished event, if nothing newer is under way and the consumer has seen all of it."""
        group = self.group()
        if group is None or group.phase is not Phase.FINISH or group.state is not GroupState.MEMBER:
            return []
        if self._last != (group.event, group.phase):
            return []
        return [m.nodeid for m in group.finished_members]

    def leave(self) -> None:
        self._port.leave(self._handle, self._session, self.group_name)

    def die(self) -> None:
        self._loop.remove_reader(self._fd)
        self._port.close()

    def _step(self) -> None:
        self._port.hints()
        group = self.group()
        if group is None:
            self.left = True
            return
        now = (group.event, group.phase)
        if now != self._last:
            self._last = now
            self.seen.append((group.phase.name.lower(), group.event, tuple(m.nodeid for m in group.members), events.boottime_ns()))
        if group.phase in (Phase.STOP, Phase.START) and (group.acked_event, group.acked_phase) != now:
            with contextlib.suppress(SwitchError):  # replaced meanwhile: the hint for that is on its way
                self._port.ack(self._handle, self._session, self.group_name, *now)


class PowerSwitch:
    """A fence agent as a script in ``folder``. It fails as long as the file ``broken`` is there, and writes down when it switched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.agent = folder / "fence_story"
        self.agent.write_text(
            f"""#!{sys.executable}
import json, pathlib, sys, time
folder = pathlib.Path({str(folder)!r})
options = dict(line.rstrip("\\n").split("=", 1) for line in sys.stdin if "=" in line)
action, plug = options.get("action"), options.get("plug")
if action == "metadata":
    actions = "".join(f'<action name="{{a}}"/>' for a in ("on", "off", "reboot", "status", "metadata"))
    print(f'<resource-agent name="fence_story"><parameters><parameter name="plug"/></parameters>'
          f'<actions>{{actions}}</actions></resource-agent>')
    sys.exit(0)
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps([action, plug, time.clock_gettime_ns(time.CLOCK_BOOTTIME)]) + "\\n")
if (folder / "broken").exists():
    print("the outlet does not answer", file=sys.stderr)
    sys.exit(1)
if action == "off":
    (folder / f"off-{{plug}}").touch()
    sys.exit(0)
sys.exit(2 if (folder / f"off-{{plug}}").exists() else 0)
"""
        )
        self.agent.chmod(0o755)

    def calls(self, action: str = "off") -> list[tuple[str, int]]:
        """(plug, CLOCK_BOOTTIME in ns) of every call of that action."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "calls").read_text().splitlines()
            return [(str(plug), int(t)) for a, plug, t in map(json.loads, lines) if a == action]
        return []

    def is_off(self, nodeid: int) -> bool:
        return (self.folder / f"off-{nodeid}").exists()

    def on(self, nodeid: int) -> None:
        (self.folder / f"off-{nodeid}").unlink(missing_ok=True)


def make_config(power: PowerSwitch | None, nodes: int = 3) -> ClusterConfig:
    return ClusterConfig(
        name="story",
        nodes=tuple(NodeConfig(n, f"node{n}", (f"127.0.0.{n}",), fence={"plug": str(n)}) for n in range(1, nodes + 1)),
        key=bytes(range(32)),
        # Twice the defaults: these tests share two cores with others, and a node must not fail by being late.
        totem=TotemConfig(port=free_port(), token_ms=1200, consensus_ms=700, detect_ms=500),
        lease=LeaseConfig(lease_ms=10000),
        fencing=FencingConfig(str(power.agent) if power else "", timeout_ms=10000, retry_ms=200),
    )


def quorate_view(switch: FakeSwitch, handle: str) -> list[int]:
    """The members of the quorate view in the switch, [] if it is not quorate."""
    with contextlib.suppress(SwitchError):
        view = switch.view(handle)
        return [m.nodeid for m in view.members] if view.quorate else []
    return []


class Node:
    """One node in this process: a kernel (FakeSwitch), a state folder, and a bridge that can be started, stopped and killed."""

    def __init__(self, config: ClusterConfig, nodeid: int, folder: Path) -> None:
        self.config, self.id = config, nodeid
        self.handle = f"story{nodeid}"
        self.folder = folder / f"node{nodeid}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = events.EventLog(str(self.folder / "events.jsonl"), f"node{nodeid}", "vcsd")
        self.switch = FakeSwitch(random.getrandbits(63) | 1, events.boottime_ns)
        self.component: Component | None = None
        self.consumers: list[Consumer] = []

    async def start(self, config: ClusterConfig | None = None) -> Component:
        self.component = Component(
            config or self.config,
            self.id,
            self.switch.provider(),
            engine=factory(self.config.engine),
            handle=self.handle,
            state_dir=str(self.folder / "state"),
            log=self.log,
        )
        await self.component.start()
        return self.component

    def join(self, group: str = "x", flags: GroupFlags = NEEDS) -> Consumer:
        self.consumers.append(Consumer(self.switch, self.handle, group, flags))
        return self.consumers[-1]

    def view(self) -> list[int]:
        return quorate_view(self.switch, self.handle)

    async def power_cut(self) -> None:
        """Everything of the node is gone in one instant, its disk excepted; it comes back with another boot incarnation."""
        assert self.component is not None
        self.component.abort()
        for consumer in self.consumers:
            consumer.die()
        self.consumers.clear()
        self.switch = FakeSwitch(random.getrandbits(63) | 1, events.boottime_ns)

    async def stop(self) -> None:
        if self.component is not None:
            await self.component.stop()
        for consumer in self.consumers:
            consumer.die()
        self.consumers.clear()

    def noted(self, event: str) -> list[dict[str, Any]]:
        return [dict(r) for r in events.read(self.log.path) if r["event"] == event]

    def tail(self) -> str:
        return "\n".join(json.dumps(r) for r in list(events.read(self.log.path))[-25:])


class Nodes:
    """Several nodes, stopped at the end whatever happens."""

    def __init__(self, config: ClusterConfig, folder: Path) -> None:
        self.config = config
        self.all = [Node(config, n.id, folder) for n in config.nodes]

    def __getitem__(self, nodeid: int) -> Node:
        return self.all[nodeid - 1]

    async def __aenter__(self) -> Nodes:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for node in self.all:
            await node.stop()

    def tails(self) -> str:
        return "\n".join(f"--- node {n.id}\n{n.tail()}" for n in self.all)

    async def until(self, what: Callable[[], object], timeout_s: float = 20.0) -> None:
        await until(what, timeout_s, self.tails)

    async def form(self) -> None:
        for node in self.all:
            await node.start()
        everybody = [n.id for n in self.all]
        await self.until(lambda: all(n.view() == everybody for n in self.all))


class DaemonNode:
    """One node as a real vcsd process; its kernel is a FakeSwitch in this process."""

    def __init__(self, config_path: Path, nodeid: int, folder: Path) -> None:
        self.id, self.handle = nodeid, f"story{nodeid}"
        self.folder = folder / f"daemon{nodeid}"
        self.run_dir = self.folder / "run"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._config_path = config_path
        self.switch = FakeSwitch(random.getrandbits(63) | 1, events.boottime_ns)
        self.server = SwitchServer(self.switch, str(self.folder / "switch"))
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *more: str) -> None:
        argv = [
            *("-m", "vcs.vcsd", "--config", str(self._config_path), "--node", str(self.id), "--handle", self.handle),
            *("--state-dir", str(self.folder / "state"), "--run-dir", str(self.run_dir), "--no-glue", "--no-realtime"),
            *("--switch", "tests.fakes.switch_remote:connect"),
            *more,
        ]
        with (self.folder / "stderr").open("ab") as err:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *argv, cwd=ROOT, stderr=err, env={**os.environ, VARIABLE: str(self.folder / "switch")}
            )

    def view(self) -> list[int]:
        return quorate_view(self.switch, self.handle)

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def tail(self) -> str:
        found = [json.dumps(r) for r in events.read(str(self.run_dir / "events.jsonl"))][-25:]
        return "\n".join([self.stderr()[-3000:], *found])

    def kill(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self, timeout_s: float = 20.0) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), timeout_s)

    async def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self.server.close()


def write_config(config: ClusterConfig, folder: Path) -> Path:
    """The configuration as cluster.toml and key file."""
    from vcs.config.load import load

    lines = ["[cluster]", f'name = "{config.name}"', 'key_file = "key"', "[totem]", f"port = {config.totem.port}"]
    lines += [f"token_ms = {config.totem.token_ms}", f"consensus_ms = {config.totem.consensus_ms}",
              f"detect_ms = {config.totem.detect_ms}"]
    lines += ["[lease]", f"lease_ms = {config.lease.lease_ms}"]
    for node in config.nodes:
        lines += ["[[node]]", f"id = {node.id}", f'name = "{node.name}"', f'address = "{node.addresses[0]}"']
        lines += [f'fence.{k} = "{v}"' for k, v in node.fence.items()]
    if config.fencing.agent:
        # Daemons are killed here and have no successor, who would end the agents that wait.
        lines += ["[fencing]", f'agent = "{config.fencing.agent}"', f"timeout_ms = {config.fencing.timeout_ms}", "standby = false"]
        lines += [f"retry_ms = {config.fencing.retry_ms}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key").write_text(config.key.hex() + "\n")
    (folder / "key").chmod(0o600)
    path = folder / "cluster.toml"
    path.write_text("\n".join(lines) + "\n")
    fencing = replace(config.fencing, standby=not config.fencing.agent)
    assert replace(load(path), key=b"", key_file="") == replace(config, key=b"", key_file="", fencing=fencing)
    return path
