# SPDX-License-Identifier: GPL-2.0-only
"""Our side of the comparison: bench.node on every machine of the lab, with its encryption on, and clients of its batch channel."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.contest import CLIENT, START_SECONDS, Formed, Node, Program, Ring
from bench.lab import Lab, Machine

ROOT = str(Path(__file__).parents[1])


class OurNode(Node):
    def __init__(self, machine: Machine, ring: Ours) -> None:
        super().__init__(machine)
        self._ring = ring
        self._node: Program | None = None
        self._mark = 0
        self.state = machine.folder / "state"
        self.state.mkdir()
        self.socket = str(machine.folder / "channel")
        machine.hold({})

    @property
    def engine(self) -> Program:
        assert self._node is not None
        return self._node

    def start(self) -> None:
        nodes = ",".join(f"{m.number}={m.address}" for m in self.machine.lab.machines.values())
        argv = [sys.executable, "-m", "bench.node", "--local", str(self.number), "--nodes", nodes, "--state", str(self.state)]
        argv += ["--socket", self.socket] if self._ring.channel else []
        argv += ["--ordinary"] if self._ring.ordinary else []
        self._node = Program(self.machine.command(argv), env={"PYTHONPATH": ROOT})
        self._mark = 0

    def mark_now(self) -> None:
        self._mark = self._node.mark() if self._node is not None else 0

    def formed(self, members: Iterable[int], seconds: float = START_SECONDS) -> Formed:
        wanted = [str(m) for m in sorted(members)]

        def pick(line: str) -> Formed | None:
            words = line.split()
            return Formed(int(words[1]), words[2]) if words[:1] == ["conf"] and words[3:] == wanted else None

        return self.engine.wait(f"configuration of {wanted} at {self.number}", pick, self._mark, seconds)

    def configurations(self) -> list[str]:
        return [line for line in self.engine.lines[self._mark:] if line.startswith("conf ")]

    def noticed(self) -> list[str]:
        return [line for line in self.engine.lines[self._mark:] if line.startswith("health ")]

    def status(self) -> dict[str, object]:
        mark = self.engine.mark()
        self.engine.say("status")
        got: dict[str, object] = self.engine.wait(
            "status", lambda line: json.loads(line[7:]) if line.startswith("status ") else None, mark)
        return got

    def cpu(self) -> float:
        """Seconds of processor time that the engine's process has used."""
        mark = self.engine.mark()
        self.engine.say("cpu")
        return self.engine.wait("cpu", lambda line: float(line[4:]) if line.startswith("cpu ") else None, mark)

    def end(self) -> None:
        if self._node is not None:
            self._node.end()
            self._node = None


class Ours(Ring):
    """``channel``: with the batch channel for clients; without it the load is made in the engine's process."""

    nodes: dict[int, OurNode]  # type: ignore[assignment]

    def __init__(self, lab: Lab, *, channel: bool = False, ordinary: bool = False) -> None:
        self.name = "vcs"
        self.channel = channel
        self.ordinary = ordinary
        super().__init__(lab)

    def __enter__(self) -> Ours:
        return self

    def make(self, machine: Machine) -> Node:
        return OurNode(machine, self)

    def client(self, machine: Machine) -> Program:
        program = Program(
            machine.command([*CLIENT, sys.executable, "-m", "bench.client", "--socket", self.nodes[machine.number].socket,
                             "--local", str(machine.number)]), env={"PYTHONPATH": ROOT})
        program.wait("readiness of the client", lambda line: line == "ready" or None)
        return program
