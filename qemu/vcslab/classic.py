# SPDX-License-Identifier: GPL-2.0-only
"""The stack of today on the lab's machines: Debian's corosync and dlm_controld, as they are packaged. What benchmarks compare with.

Everything is at its default except what the lab needs (a list of nodes, the fence agent, log files) and what ``Tuning`` says. Fencing goes
through the same power switch and the same agent as ours; GFS2, its writers and the disk are the same (vcslab.gfs2).

    stack = Classic(lab, Tuning(token_ms=1000)); stack.up(1, 2, 3); stack.mkfs(); [stack.mount(n) for n in (1, 2, 3)]
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from harness import Cluster

from vcslab.gfs2 import DLM, HANDLE, Gfs2Lab

LOGS = "/run/lab/log"
"Streamed to the host as they grow."
FORMED = re.compile(r"^(\w+ +\d+ [\d:]+)\.(\d+).*A new membership \([0-9a-f.]+\) was formed\.(?P<who>.*)$")
FAILED = re.compile(r"^(\w+ +\d+ [\d:]+)\.(\d+).*A processor failed, forming new configuration")
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Tuning:
    """What differs from the defaults."""

    token_ms: int = 0
    "corosync's token; 0: its default (3000 and 650 for the third node)."
    post_join_delay_s: int = 1
    """dlm_controld fences nobody for so long after a node has joined. Its default of 30 s would only make whoever measures wait (or add up
    to 30 s to its time): a kill here comes later than that after a join."""
    plock_ownership: bool = False

    @property
    def name(self) -> str:
        return f"corosync + dlm_controld ({f'token={self.token_ms}' if self.token_ms else 'default'})"

    def corosync_conf(self, name: str, nodes: Iterable[int]) -> str:
        listed = "".join(
            f"  node {{\n    ring0_addr: 10.77.0.{n}\n    nodeid: {n}\n    name: node{n}\n  }}\n" for n in nodes
        )
        token = f"  token: {self.token_ms}\n" if self.token_ms else ""
        totem = f"  version: 2\n  cluster_name: {name}\n  transport: knet\n  crypto_cipher: none\n  crypto_hash: none\n{token}"
        logging = f"  to_syslog: no\n  to_stderr: no\n  to_logfile: yes\n  logfile: {LOGS}/corosync.log\n  timestamp: hires\n"
        return (
            f"totem {{\n{totem}}}\nnodelist {{\n{listed}}}\n"
            f"quorum {{\n  provider: corosync_votequorum\n}}\nlogging {{\n{logging}}}\n"
        )

    def dlm_conf(self, nodes: Iterable[int]) -> str:
        options = [f"post_join_delay={self.post_join_delay_s}", f"plock_ownership={int(self.plock_ownership)}"]
        fencing = ["device lab /usr/sbin/fence_lab action=off", *(f"connect lab node={n} plug=node{n}" for n in nodes)]
        return "\n".join([*options, "", *fencing, ""])


class Classic(Gfs2Lab):
    """corosync + dlm_controld on the machines of a harness Cluster."""

    helper = False

    def __init__(self, lab: Cluster, tuning: Tuning | None = None, *, name: str = HANDLE) -> None:
        super().__init__(lab, name=name)
        self.tuning = tuning or Tuning()
        self.nodes = tuple(range(1, len(lab) + 1))

    # --- the life of a node -------------------------------------------------------------------------------------------

    def install(self, node: int) -> None:
        """Configuration files and kernel modules, as packaging and an administrator would leave them."""
        m = self[node]
        m.write("/etc/corosync/corosync.conf", self.tuning.corosync_conf(self.name, self.nodes))
        m.write("/etc/dlm/dlm.conf", self.tuning.dlm_conf(self.nodes))
        self.prepare(node, "mkdir -p /var/lib/corosync /var/log/cluster /var/log/dlm_controld")

    def start(self, node: int) -> None:
        """corosync, and dlm_controld as soon as corosync has a membership (its unit's order)."""
        m = self[node]
        m.spawn("exec corosync -f", log="corosync-out")
        self.wait(lambda: m.run("corosync-quorumtool -s").out, START_S, f"corosync of node {node}")
        m.spawn("exec dlm_controld -D", log="dlm_controld")

    def up(self, *nodes: int) -> None:
        """Install and start on ``nodes`` (default: all that are on); wait until they are quorate and the DLM has its address."""
        chosen = list(nodes) or [m.spec.node for m in self.lab if m.on]
        self.lab.each(lambda m: self.install(m.spec.node), *chosen)
        self.lab.each(lambda m: self.start(m.spec.node), *chosen)
        self.wait_quorate(*chosen)
        self.wait_dlm(*chosen)

    def members(self, node: int) -> tuple[bool, list[int]]:
        """(quorate, nodeids) as votequorum says on ``node``."""
        out = self[node].run("corosync-quorumtool -s").out
        quorate = re.search(r"^Quorate:\s+Yes", out, re.M) is not None
        listed = out.partition("Membership information")[2]
        return quorate, sorted(int(n) for n in re.findall(r"^\s*(\d+)\s+\d+\s", listed, re.M))

    def wait_quorate(self, *nodes: int, members: Iterable[int] | None = None, timeout: float = START_S) -> None:
        wanted = (True, sorted(members if members is not None else nodes))
        self.wait(lambda: all(self.members(n) == wanted for n in nodes), timeout, f"corosync's quorate {wanted[1]} on nodes {list(nodes)}")

    def wait_dlm(self, *nodes: int, timeout: float = START_S) -> None:
        """Until dlm_controld has given the DLM of ``nodes`` its own address, and all know each other's."""
        self.wait(
            lambda: all(self[n].read(f"{DLM}/comms/{n}/local").strip() == "1" for n in nodes), timeout,
            f"dlm_controld's comms on nodes {list(nodes)}",
        )  # fmt: skip

    def wait_lockspace(self, nodes: Iterable[int], lockspace: str, timeout: float = START_S) -> None:
        """Until dlm_controld of every one of ``nodes`` counts exactly these as members of the lockspace and has no change under way."""
        wanted = sorted(nodes)

        def done() -> bool:
            for n in wanted:
                out = self[n].run("dlm_tool ls").out
                space = out.partition(f"name          {lockspace}\n")[2].partition("\n\n")[0]
                members = re.search(r"^members\s+([\d ]+)$", space, re.M)
                if members is None or sorted(map(int, members[1].split())) != wanted or "new change" in space:
                    return False
            return True

        self.wait(done, timeout, f"lockspace {lockspace} with members {wanted}")

    # --- what its own log says ----------------------------------------------------------------------------------------

    def membership_events(self, node: int) -> list[tuple[int, str]]:
        """(host ns, "failed" or "formed ...") from corosync's log of the node's current boot."""
        m = self[node]
        path = m.logs.folder / "corosync.log"
        shift = m.offset.realtime_ns if m.offset else 0
        found = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
            for kind, pattern in (("failed", FAILED), ("formed", FORMED)):
                if got := pattern.match(line):
                    # the guests' clocks are UTC, and so is what they write
                    stamp = time.strptime(f"{time.gmtime().tm_year} {got[1]} UTC", "%Y %b %d %H:%M:%S %Z")
                    ns = calendar.timegm(stamp) * 10**9 + int(got[2].ljust(9, "0")[:9])
                    found.append((ns + shift, kind if kind == "failed" else f"formed{got['who']}"))
        return found
