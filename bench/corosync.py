# SPDX-License-Identifier: GPL-2.0-only
"""The peer: Debian's corosync, one per machine of the lab, at its defaults but for what a run says; its encryption off.

When a node has a configuration is read from corosync's own log ("A new membership was formed", stamped in ms). That comes before its
clients are told, some ms later, by the ring callback of the group library; a client on each node says by it which members a ring has.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.contest import CLIENT, START_SECONDS, Formed, Node, Program, Ring
from bench.lab import Lab, Machine, now_ns

HERE = Path(__file__).parent
FORMED = re.compile(r"^(\w+ +\d+ [\d:]+)\.(\d+).*A new membership \(([0-9a-f]+)\.([0-9a-f]+)\) was formed")
PORT = 5405


@dataclass(frozen=True, slots=True)
class Setting:
    """What differs from the defaults."""

    transport: str = "knet"
    token_ms: int = 0
    "0: the default (3000 and the coefficient)."
    netmtu: int = 0

    @property
    def name(self) -> str:
        parts = [self.transport if self.token_ms or self.netmtu else f"default, {self.transport}"]
        if self.token_ms:
            parts.append(f"token={self.token_ms}")
        if self.netmtu:
            parts.append(f"netmtu={self.netmtu}")
        return f"corosync ({', '.join(parts)})"

    def text(self, machines: Iterable[Machine], log: str) -> str:
        totem = ["version: 2", "cluster_name: bench", f"transport: {self.transport}", "crypto_cipher: none", "crypto_hash: none"]
        totem += [f"token: {self.token_ms}"] if self.token_ms else []
        totem += [f"netmtu: {self.netmtu}"] if self.netmtu else []
        nodes = "".join(
            f"  node {{\n    ring0_addr: {m.address}\n    nodeid: {m.number}\n    name: n{m.number}\n  }}\n" for m in machines)
        logging = "  to_syslog: no\n  to_stderr: no\n  to_logfile: yes\n  timestamp: hires\n"
        body = "".join(f"  {line}\n" for line in totem)
        return f"totem {{\n{body}}}\nnodelist {{\n{nodes}}}\nlogging {{\n{logging}  logfile: {log}\n}}\n"


def version() -> str:
    return subprocess.run(["corosync", "-v"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def build_client(folder: Path) -> Path:
    """Compile the client with the machine's compiler. Raises CalledProcessError if that fails."""
    binary = folder / "cpg_client"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(binary), str(HERE / "cpg_client.c"), "-lcpg"], check=True)
    return binary


class CorosyncNode(Node):
    def __init__(self, machine: Machine, ring: Corosync) -> None:
        super().__init__(machine)
        self._ring = ring
        self._daemon: Program | None = None
        self.watcher: Program | None = None
        self._mark = 0
        self.log = machine.folder / "corosync.log"
        etc, var = machine.folder / "etc", machine.folder / "var"
        etc.mkdir()
        var.mkdir()
        (etc / "corosync.conf").write_text(ring.setting.text(machine.lab.machines.values(), str(self.log)))
        machine.hold({"/etc/corosync": str(etc), "/var/lib/corosync": str(var)})

    @property
    def engine(self) -> Program:
        assert self._daemon is not None
        return self._daemon

    def start(self) -> None:
        self._daemon = Program(self.machine.command(["corosync", "-f"]), stderr=True)
        self.watcher = self._ring.client(self.machine)
        self._mark = 0

    def mark_now(self) -> None:
        self._mark = self.watcher.mark() if self.watcher is not None else 0

    def formed(self, members: Iterable[int], seconds: float = START_SECONDS) -> Formed:
        assert self.watcher is not None
        wanted = [str(m) for m in sorted(members)]

        def pick(line: str) -> str | None:
            words = line.split()
            return words[2] if words[:1] == ["conf"] and sorted(words[3:], key=int) == wanted else None

        ring = self.watcher.wait(f"configuration of {wanted} at {self.number}", pick, self._mark, seconds)
        return Formed(self._logged(ring), ring)

    def configurations(self) -> list[str]:
        assert self.watcher is not None
        return [line for line in self.watcher.lines[self._mark:] if line.startswith("conf ")]

    def _logged(self, ring: str) -> int:
        """When the engine's log says that ``ring`` was formed, on our clock."""
        behind = time.time_ns() - now_ns()
        rep, seq = map(int, ring.split("."))
        for line in reversed(self.log.read_text(errors="replace").splitlines()):
            got = FORMED.match(line)
            if got and (int(got[3], 16), int(got[4], 16)) == (rep, seq):
                stamp = time.mktime(time.strptime(f"{time.localtime().tm_year} {got[1]}", "%Y %b %d %H:%M:%S"))
                return int(stamp * 1e9) + int(got[2]) * 1_000_000 - behind
        raise RuntimeError(f"{self.log} does not speak of ring {ring}")

    def end(self) -> None:
        for program in (self.watcher, self._daemon):
            if program is not None:
                program.end()
        self.watcher = self._daemon = None


class Corosync(Ring):
    def __init__(self, lab: Lab, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.name
        self._binary = build_client(lab.folder)
        super().__init__(lab)

    def make(self, machine: Machine) -> Node:
        return CorosyncNode(machine, self)

    def client(self, machine: Machine) -> Program:
        program = Program(machine.command([*CLIENT, str(self._binary)]))
        program.wait("readiness of the client", lambda line: line == "ready" or None)
        return program
