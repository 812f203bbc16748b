# SPDX-License-Identifier: GPL-2.0-only
"""A cluster of machines with the product on it: the verbs that demo, shell and cluster tests tell their stories with.

Everything is read back from the system itself: sysfs of the switch, mount tables, the DLM's own files, the workload's file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from harness import Cluster

from vcslab.gfs2 import DLM, FSNAME, HANDLE, MOUNTPOINT, SHARED_DISK, Gfs2Lab

__all__ = ["DLM", "FSNAME", "HANDLE", "MOUNTPOINT", "SHARED_DISK", "VcsCluster", "cluster_toml", "parse_list"]
SYSFS = "/sys/kernel/vcs"
KEY = "6b1f" * 16
"A key for virtual machines that live for minutes; a real one comes from `vcs keygen`."


def cluster_toml(nodes: Iterable[int], *, name: str = HANDLE, extra: str = "", fence: bool = True) -> str:
    """The configuration of the lab's nodes; ``extra`` is appended (further tables). Without ``fence`` there is no power switch: then the
    lease fences."""
    parts = [f'[cluster]\nname = "{name}"\n']
    for n in nodes:
        parts.append(f'[[node]]\nid = {n}\nname = "node{n}"\naddress = "10.77.0.{n}"\n')
        if fence:
            parts.append(f'[node.fence]\nplug = "node{n}"\n')
    if fence:
        parts.append('[fencing]\nagent = "fence_lab"\n')
    return "\n".join(parts) + extra


class VcsCluster(Gfs2Lab):
    """The product on the machines of a harness Cluster."""

    def __init__(self, lab: Cluster, *, name: str = HANDLE, extra: str = "", fence: bool = True) -> None:
        super().__init__(lab, name=name)
        self.toml = cluster_toml(range(1, len(lab) + 1), name=name, extra=extra, fence=fence)

    # --- the life of a node -------------------------------------------------------------------------------------------

    def install(self, node: int) -> None:
        """Configuration, key, modules: what packaging and boot would do."""
        m = self[node]
        m.write("/etc/vcs/cluster.toml", self.toml)
        self.install_key(node)
        # /var/lib/vcs outlives the power: obligations and ring sequences are read back after a reboot (SAFETY S6)
        self.prepare(node, "modprobe vcs && mkdir -p /var/lib/vcs && mount /dev/disk/by-id/virtio-own /var/lib/vcs")

    def install_key(self, node: int) -> None:
        self[node].write("/etc/vcs/cluster.key", KEY + "\n", mode=0o600)

    def start(self, node: int, *, log: str = "vcsd") -> None:
        """Start vcsd and return; see wait_quorate."""
        self[node].spawn("exec vcsd --config /etc/vcs/cluster.toml", log=log)

    def up(self, *nodes: int) -> None:
        """Install and start on ``nodes`` (default: all that are on), and wait until they are quorate together."""
        chosen = list(nodes) or [m.spec.node for m in self.lab if m.on]
        self.lab.each(lambda m: self.install(m.spec.node), *chosen)
        self.lab.each(lambda m: self.start(m.spec.node), *chosen)
        self.wait_quorate(*chosen)
        self.wait_dlm(*chosen)

    def wait_dlm(self, *nodes: int, timeout: float = 60) -> None:
        """Until dlm_glue has given the DLM of ``nodes`` its own address: from then on lockspaces can be made."""
        self.wait(
            lambda: all(self[n].read(f"{DLM}/comms/{n}/local").strip() == "1" for n in nodes),
            timeout,
            f"dlm_glue's comms on nodes {list(nodes)}",
        )

    def leave(self, node: int, timeout: float = 30) -> None:
        """A clean leave; vcsd ends by itself."""
        self[node].run("vcs leave", timeout=timeout, check=True)
        self.wait(lambda: self.daemon_pid(node, "vcs.vcsd") == 0, 20, f"vcsd of node {node} to end")

    # --- what the kernel says -----------------------------------------------------------------------------------------

    def sysfs(self, node: int, path: str) -> str:
        return self[node].read(f"{SYSFS}/{self.name}/{path}").strip()

    def view(self, node: int) -> dict[str, Any]:
        """The view in the node's kernel: generation, ring, quorate, members (list of nodeids)."""
        return {
            "generation": int(self.sysfs(node, "view/generation")),
            "ring": self.sysfs(node, "view/ring"),
            "quorate": self.sysfs(node, "view/quorate") == "1",
            "members": parse_list(self.sysfs(node, "view/members")),
        }

    def group(self, node: int, lockspace: str = FSNAME) -> dict[str, str]:
        """What the node's kernel says of the lockspace's group; nothing when it has none. Read by the agent: a shell with its forks would
        take an emulated machine seconds."""
        base = f"groups/dlm:{lockspace}"
        try:
            return {name: self.sysfs(node, f"{base}/{name}") for name in ("state", "event", "phase", "acked_event", "nr_members")}
        except OSError:
            return {}

    def quorate(self, node: int, members: Iterable[int]) -> bool:
        view = self.view(node)
        return bool(view["quorate"]) and view["members"] == sorted(members)

    def wait_quorate(self, *nodes: int, members: Iterable[int] | None = None, timeout: float = 60) -> None:
        """Until the kernels of ``nodes`` hold a quorate view of exactly ``members`` (default: those nodes)."""
        wanted = sorted(members if members is not None else nodes)
        self.wait(
            lambda: all(self.quorate(n, wanted) for n in nodes), timeout, f"a quorate view {wanted} on nodes {list(nodes)}"
        )

    # --- daemons ------------------------------------------------------------------------------------------------------

    def daemon_pid(self, node: int, module: str) -> int:
        """Pid of the first process whose command line runs ``module``, 0 if there is none."""
        out = self[node].run(f"pgrep -o -f 'python3.*-m {module}( |$)'").out.split()
        return int(out[0]) if out else 0

    def kill_daemon(self, node: int, module: str = "vcs.vcsd") -> int:
        """kill -9; the host's ns just before."""
        pid = self.daemon_pid(node, module)
        if not pid:
            raise AssertionError(f"node {node}: no {module} is running")
        when = time.monotonic_ns()
        self[node].run(f"kill -9 {pid}", check=True)
        return when


def parse_list(text: str) -> list[int]:
    """``1-3,7`` -> [1, 2, 3, 7]."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
