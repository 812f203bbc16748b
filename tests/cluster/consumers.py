# SPDX-License-Identifier: GPL-2.0-only
"""What the stories of the DLM's users share: the cluster, a power cut in the middle of work, and leaving without a trace."""

from __future__ import annotations

import json
from typing import Any

from harness.spec import Spawned
from vcslab.cluster import VcsCluster, parse_list
from vcslab.evidence import cuts, fences, no_start_before_fence

from tests.cluster.calm import LIMIT_S
from tests.cluster.conftest import NODES, bring_back

BLOCKS = "exec python3 -S /opt/vcs/src/tests/cluster/blocks.py"


def run(vcs: VcsCluster, node: int, command: str, timeout: float = 60) -> str:
    """Standard output of a command that must succeed."""
    return vcs[node].run(command, timeout=timeout, check=True).out


def everywhere(vcs: VcsCluster, command: str, *nodes: int, timeout: float = 60) -> None:
    """The same command on all of ``nodes`` (default: all that are on) at once."""
    vcs.lab.each(lambda m: m.run(command, timeout=timeout, check=True), *nodes)


def lockspaces(vcs: VcsCluster, node: int) -> list[str]:
    """What the node's kernel has, sorted."""
    return sorted(run(vcs, node, "ls /sys/kernel/dlm").split())


def members(vcs: VcsCluster, node: int, lockspace: str) -> list[int]:
    """As the node's switch has them."""
    groups = json.loads(run(vcs, node, "vcs groups --json"))["groups"]
    return next((g["members"] for g in groups if g["name"] == f"dlm:{lockspace}"), [])


def cut(vcs: VcsCluster, victim: int, lockspace: str) -> int:
    """Power cut of ``victim``, a member of ``lockspace``; returns its time when both others were given their start, after the fence."""
    survivors = [n for n in NODES if n != victim]
    cut_ns = vcs[victim].power_off()
    fence = no_start_before_fence(vcs, survivors, victim, since_ns=cut_ns, group=f"dlm:{lockspace}")
    assert fence.asked_by in survivors and len(fences(vcs, victim, since_ns=cut_ns)) == 1
    for n in survivors:
        vcs.wait(lambda n=n: vcs.group(n, lockspace).get("phase") == "finish", 60, f"{lockspace} to be finished on node {n}")  # type: ignore[misc]
        assert parse_list(vcs.sysfs(n, "view/members")) == survivors
    return cut_ns


def back(vcs: VcsCluster, node: int) -> None:
    """The node boots, joins, and its DLM can be used."""
    bring_back(vcs, node)
    vcs.wait_quorate(*NODES, timeout=LIMIT_S)
    vcs.wait_dlm(node, timeout=LIMIT_S)


def start_blocks(vcs: VcsCluster, node: int, device: str, first: int) -> Spawned:
    """A writer of blocks.py; returns when it writes."""
    job = vcs[node].spawn(f"{BLOCKS} write {device} {first} {node}", log=f"blocks{first}-{vcs[node].boots}")
    vcs.wait(lambda: acknowledged(job) > 100, 60, f"a hundred blocks written on node {node}")
    return job


def acknowledged(job: Spawned) -> int:
    """The last number that a writer had printed; the line that was being printed when its node died does not count."""
    lines = job.log.read_text().splitlines(keepends=True) if job.log.exists() else []
    return max((int(line) for line in lines if line.endswith("\n") and line.strip().isdigit()), default=0)


def check_blocks(vcs: VcsCluster, node: int, device: str, first: int) -> dict[str, Any]:
    """What blocks.py finds, which must be no damage."""
    result = vcs[node].run(f"{BLOCKS} check {device} {first}", timeout=60)
    answer: dict[str, Any] = json.loads(result.out)
    assert not answer["problems"], f"node {node} reads {answer['problems']} on {device}"
    return answer


def kmsg(vcs: VcsCluster, node: int) -> str:
    """The node's kernel messages of this boot so far."""
    path = vcs[node].logs.folder / "kmsg.log"
    return path.read_text(errors="replace") if path.exists() else ""


def no_trace(vcs: VcsCluster, *names: str) -> None:
    """Nothing of these lockspaces is left in any kernel, nor their groups. A daemon's last one goes a moment after its last command."""
    for n in NODES:
        left = f"ls -d {' '.join(f'/sys/kernel/dlm/{x} /sys/kernel/vcs/{vcs.name}/groups/dlm:{x}' for x in names)} 2>/dev/null"
        vcs.wait(lambda n=n, left=left: vcs[n].run(left).out == "", 60, f"node {n} to be without {', '.join(names)}")  # type: ignore[misc]


def all_leave(vcs: VcsCluster) -> None:
    """A clean stop of the whole cluster, node by node: nobody is fenced."""
    before = cuts(vcs)
    for n in NODES:
        vcs.leave(n)
    assert cuts(vcs) == before
