# SPDX-License-Identifier: GPL-2.0-only
"""A program for tests/process/test_dlm_tool.py, to be run in a network namespace of its own: dlm_glue's real plan on the userland switch
and the model of the DLM, its real sockets, and Debian's own dlm_tool beside it. Prints what dlm_tool said in each situation, as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from typing import Any

from dlm_glue import controld_wire as wire
from dlm_glue.controld_log import LoggedTree, LogRing
from dlm_glue.controld_seat import Seat
from dlm_glue.controld_server import ControldServer
from tests.fakes.dlm import PATHS
from tests.fakes.glue import World
from vcs.config.load import loads
from vcs.control import ControlServer
from vcs.errors import VcsError

CONFIG = """
[cluster]
name = "lab"
[[node]]
id = 1
name = "n1"
address = "10.0.0.1"
[dlm]
port = 4711
"""
PLOCK = "4658 WR 0-9223372036854775807 nodeid 1 pid 263 owner ffff888004206580 rown 0"


class Vcsd:
    """As much of a backend as dlm_glue asks."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.picture: dict[str, Any] = {
            "mode": "primary", "regular": True, "ring": "9.1", "groups": [], "obligations": [],
            "nodes": [{"nodeid": n, "status": "member", "present": True} for n in (1, 2)],
        }  # fmt: skip

    def describe(self) -> Any:
        return self.picture

    def fence_ack(self, nodeid: int) -> None:
        if nodeid != 2:
            raise VcsError("nobody waits for it")
        self.acked.append(nodeid)


async def dlm_tool(*arguments: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        "dlm_tool", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    return {"rc": process.returncode, "out": out.decode(), "err": err.decode()}


async def raw(data: bytes, name: str) -> bytes:
    """What a client gets that sends ``data``."""
    reader, writer = await asyncio.open_unix_connection(name)
    writer.write(data)
    writer.write_eof()
    got = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return got


def as_nobody(data: bytes, name: str) -> str:
    """What a user without rights gets who sends ``data``."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)
            client.sendall(data)
            while block := client.recv(65536):
                os.write(into, block)
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        got = pipe.read()
    os.waitpid(child, 0)
    return got.hex()


class Host:
    def __init__(self, folder: str) -> None:
        self.world = World((1, 2))
        self.ring = LogRing(clock=lambda: 13)
        self.world.applier._tree = LoggedTree(self.world.dlm, self.ring)
        seat = Seat(lambda: self.world.glue.state, self.world.applier._tree, PATHS, lambda: loads(CONFIG, with_key=False))
        seat.plocks = lambda name: [PLOCK] if name == "gfs" else []
        self.world.dlm.cluster = {**(self.world.dlm.cluster or {}), "log_debug": "0"}
        self.server = ControldServer(seat, self.ring, f"{folder}/vcs.sock")
        self.world.glue.watchers.append(self.server.watch)
        self.vcsd = Vcsd()
        self.control = ControlServer(f"{folder}/vcs.sock", self.vcsd)  # type: ignore[arg-type]
        self.said: dict[str, dict[str, Any]] = {}

    async def tell(self, situation: str, *commands: str) -> None:
        self.said[situation] = {command: await dlm_tool(*command.split()) for command in commands}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.control.start()
        await self.server.start()
        try:
            yield
        finally:
            await self.server.close()
            await self.control.close()

    def group(self, *members: int, stopped: tuple[int, ...] = ()) -> None:
        self.vcsd.picture["groups"] = [
            {"name": "dlm:gfs", "phase": "stop", "members": [{"nodeid": n} for n in members], "joining": [], "leaving": [],
             "stopped": list(stopped), "started": []}
        ]  # fmt: skip


ASKED = (
    "ls", "ls -n", "ls gfs", "ls other", "status", "status -v", "dump", "dump_config", "plocks gfs", "plocks other",
    "log_plock", "run_list",
)  # fmt: skip


async def story(folder: str) -> dict[str, Any]:
    host = Host(folder)
    world = host.world
    async with host.running():
        await host.tell("idle", "ls", "status")
        world.mounted("gfs", {1: 11, 2: 12})
        await host.tell("normal", *ASKED)
        world.stop("gfs")
        world.settle()
        host.group(1, 2, stopped=(1,))
        await host.tell("recovering", "ls")
        world.start("gfs", {1: 11, 2: 12})
        world.settle()
        await host.tell("started", "ls")
        world.recovered("gfs")
        world.settle()
        world.dies(2)
        world.stop("gfs")
        world.settle()
        host.group(1, stopped=(1,))
        host.vcsd.picture["obligations"] = [
            {"nodeid": 2, "incarnation": 1, "groups": ["dlm:gfs"], "everything": False, "phase": "launched", "fencer": 1, "detail": ""}
        ]
        host.vcsd.picture["nodes"][1]["present"] = False
        await host.tell("fencing", "ls -n", "status", "fence_ack 2", "fence_ack 3", "fence_ack two")
        world.view(quorate=False)
        host.vcsd.picture["mode"] = "inquorate"
        world.settle()
        await host.tell("quorum", "ls", "status")
        await host.tell("options", "set_config log_debug=1", "dump_config", "reload_config", "set_config restore_all", "run_start true")
        host.said["options"]["kernel"] = world.dlm.cluster
        host.said["nobody"] = {
            "ls": await asyncio.to_thread(as_nobody, wire.request(wire.Command.LOCKSPACES), wire.QUERY_SOCKET),
            "fence_ack": await asyncio.to_thread(as_nobody, wire.request(wire.Command.FENCE_ACK, name="2"), wire.SOCKET),
        }
        host.said["acked"] = {"nodes": list(host.vcsd.acked)}
        host.said["malformed"] = {"answers": await malformed()}
        await host.tell("afterwards", "ls", "dump")
        await host.control.close()
        await host.tell("without vcsd", "ls", "status")
    host.said["counters"] = dict(host.server.counters)
    await host.tell("gone", "ls", "status")
    return host.said


async def malformed() -> list[str]:
    short = wire.request(wire.Command.LOCKSPACES, data=9)
    bad = [b"", b"x" * 95, b"\xff" * 96, short[:4] + b"\0\0\2\0" + short[8:], wire.request(77), wire.request(wire.Command.SET_CONFIG)[:16] +
           struct.pack("=I", 1 << 31) + short[20:]]  # fmt: skip
    return [(await raw(data, name)).hex() for data in bad for name in (wire.SOCKET, wire.QUERY_SOCKET)]


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps(asyncio.run(story(sys.argv[1]))))
