# SPDX-License-Identifier: GPL-2.0-only
"""The steps that demo and cluster tests share: each does one thing and checks it in the system's own state."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

from vcslab.cluster import FSNAME, MOUNTPOINT, VcsCluster
from vcslab.gfs2 import Gfs2Lab
from vcslab.report import Kill, Missing, measure

RECOVERY_LIMIT_S = 60.0


def check(true: object, what: str) -> None:
    """Not an assert: it must hold under ``python -O`` as well."""
    if not true:
        raise AssertionError(what)


def cross_read(cluster: VcsCluster, nodes: Iterable[int]) -> None:
    """Every node writes a file of its own; every node reads what the others wrote, and the checksums agree."""
    nodes = list(nodes)
    sums: dict[int, str] = {}
    for n in nodes:
        path = f"{MOUNTPOINT}/from-node{n}"
        cluster[n].run(f"dd if=/dev/urandom of={path} bs=4096 count=16 conv=fsync 2>/dev/null", timeout=60, check=True)
        sums[n] = hashlib.sha256(cluster[n].read_bytes(path)).hexdigest()
    for reader in nodes:
        for writer in nodes:
            data = cluster[reader].read_bytes(f"{MOUNTPOINT}/from-node{writer}")
            check(
                hashlib.sha256(data).hexdigest() == sums[writer],
                f"node {reader} does not read what node {writer} wrote",
            )


def wait_group(cluster: VcsCluster, nodes: Iterable[int], lockspace: str = FSNAME, timeout: float = 60) -> None:
    """Until the lockspace's group is finished on ``nodes`` with exactly these members."""
    nodes = list(nodes)

    def done() -> bool:
        groups = [cluster.group(n, lockspace) for n in nodes]
        return (
            all(g.get("state") == "member" and g.get("phase") == "finish" for g in groups)
            and {g["nr_members"] for g in groups} == {str(len(nodes))}
            and len({g["event"] for g in groups}) == 1
        )

    cluster.wait(done, timeout, f"group dlm:{lockspace} finished with members {nodes}")


def wait_writing(cluster: Gfs2Lab, logs: dict[int, str], records: int = 5, timeout: float = 60) -> None:
    """Until every writer has fsynced ``records`` more records than now."""
    before = {n: len(cluster.written(n, log)) for n, log in logs.items()}
    cluster.wait(
        lambda: all(len(cluster.written(n, log)) >= before[n] + records for n, log in logs.items()),
        timeout,
        f"{records} more fsynced records of writers on {sorted(logs)}",
    )


def kill_under_load(cluster: VcsCluster, victim: int, logs: dict[int, str]) -> tuple[Kill, int]:
    """Cut ``victim``'s power while all write. Returns the failover's phases and the last counter that the victim had fsynced."""
    cut_ns = cluster[victim].power_off()
    return failover(cluster, victim, cut_ns, logs)


def failover(cluster: VcsCluster, victim: int, cut_ns: int, logs: dict[int, str]) -> tuple[Kill, int]:
    """Wait until all survivors of ``victim``, which is off since ``cut_ns``, write again; see kill_under_load."""
    log = logs[victim]
    boot = cluster[victim].boots
    survivors = {n: name for n, name in logs.items() if n != victim}
    last: list[BaseException] = []
    deadline = time.monotonic() + RECOVERY_LIMIT_S
    while True:
        try:
            kill = measure(cluster, victim, cut_ns, survivors)
            break
        except Missing as missing:
            last[:] = [missing]
            if time.monotonic() > deadline:
                raise AssertionError(f"failover not complete in {RECOVERY_LIMIT_S:.0f} s: {missing}. {cluster.lab.where()}") from missing
        time.sleep(0.05)
    fsynced = max((r["own"] for r in cluster.written(victim, log, boot=boot)), default=0)
    return kill, fsynced


def key_of(node: int, log: str) -> str:
    """How the workload's file names the writer whose log this is."""
    return f"{node}/{int(log.removeprefix('writer')):08x}"


def verify_file(cluster: VcsCluster, node: int, writer_key: str, fsynced: int) -> dict[str, object]:
    """Read on ``node``: no record torn or missing, and everything that ``writer_key`` had fsynced is there."""
    answer = cluster.check_file(node)
    check(not answer["problems"], f"node {node} reads damage: {answer['problems']}")
    found = answer["writers"].get(writer_key, 0)
    check(found >= fsynced, f"writer {writer_key} had fsynced {fsynced} records, node {node} reads {found}")
    return answer
