# SPDX-License-Identifier: GPL-2.0-only
"""Every user of the DLM that Linux has, unmodified, with Debian's tools: used by three nodes, one killed in the middle of work, survivors
go on with everything that was acknowledged, it comes back, and all stop without a trace. The commands are those of docs/guides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.pytest_plugin import Factory
from vcslab.cluster import HANDLE, MOUNTPOINT, VcsCluster
from vcslab.story import cross_read, key_of, verify_file, wait_group, wait_writing

from tests.cluster.calm import site
from tests.cluster.conftest import NODES
from tests.cluster.consumers import (
    acknowledged,
    all_leave,
    back,
    check_blocks,
    cut,
    everywhere,
    kmsg,
    lockspaces,
    members,
    no_trace,
    run,
    start_blocks,
)  # fmt: skip

pytestmark = pytest.mark.vm

VICTIM, SURVIVORS = 2, (1, 3)
FS_DISK, LEGS, LVM_DISK = "/dev/vdd", ("/dev/vde", "/dev/vdf"), "/dev/vdg"
NAMED = "LD_LIBRARY_PATH=/usr/lib/vcs/compat"
"For what mdadm changes in an array's superblocks: it asks libcmap for the cluster's name first."
SPANNING = r"at fs/dlm/requestqueue\.c:\d+ dlm_add_requestqueue"
"""6.1 reports a copy into a buffer of the right length, because its type says less (docs/lab.md, known of the kernels): once per boot, when
a message comes while the lockspace is stopped."""
LOCKED_ELSEWHERE = 5
"Exit status of lvchange for a logical volume that another node has."


@pytest.fixture(scope="module")
def cluster_on(kernel: str, module_cluster: Factory) -> Iterator[VcsCluster]:
    """One cluster for all stories of one kernel, and its machines are off before the next kernel's are on."""
    vcs = site(module_cluster, kernel, disks=4)
    if kernel == "6.1":
        vcs.lab.splats.allow(SPANNING)
    yield vcs
    vcs.lab.close(check=False)


def file_system_story(vcs: VcsCluster, lockspace: str, mount: str) -> None:
    """A cluster file system that every node has mounted: one file written by all under one lock, a kill in the middle of it."""
    wait_group(vcs, NODES, lockspace)
    cross_read(vcs, NODES)
    run(vcs, 1, f"touch {MOUNTPOINT}/journal")  # OCFS2 says EEXIST to one of two nodes that create a file at the same moment, O_EXCL or not
    logs = {n: vcs.start_writer(n) for n in NODES}
    wait_writing(vcs, logs, 20, 120)
    boot = vcs[VICTIM].boots

    cut(vcs, VICTIM, lockspace)
    fsynced = max(r["own"] for r in vcs.written(VICTIM, logs[VICTIM], boot=boot))
    wait_writing(vcs, {n: logs[n] for n in SURVIVORS}, 20, 120)
    for n in SURVIVORS:
        vcs.stop_writers(n)
    key = key_of(VICTIM, logs[VICTIM])
    for n in SURVIVORS:
        verify_file(vcs, n, key, fsynced)

    back(vcs, VICTIM)
    run(vcs, VICTIM, mount, 90)
    wait_group(vcs, NODES, lockspace)
    verify_file(vcs, VICTIM, key, fsynced)
    cross_read(vcs, NODES)
    everywhere(vcs, f"umount {MOUNTPOINT}", timeout=90)
    no_trace(vcs, lockspace)


@pytest.mark.kernels("6.1")
def test_gfs2(cluster_on: VcsCluster) -> None:
    """On 6.1; on 6.12 it has a file of its own."""
    vcs = cluster_on
    vcs.mkfs(1, journals=len(NODES))
    mount = f"mount -t gfs2 -o noatime {FS_DISK} {MOUNTPOINT}"
    for n in NODES:
        run(vcs, n, mount, 90)
    assert "shared" in lockspaces(vcs, 1)
    file_system_story(vcs, "shared", mount)


@pytest.mark.kernels("6.12")
def test_ocfs2(cluster_on: VcsCluster) -> None:
    """With the userspace stack: the lockspace is the volume's UUID."""
    vcs = cluster_on
    stack = "modprobe -a ocfs2 ocfs2_stack_user && printf pcmk > /sys/fs/ocfs2/cluster_stack"
    mount = f"mount -t ocfs2 -o noatime {FS_DISK} {MOUNTPOINT}"
    everywhere(vcs, stack)
    run(vcs, 1, f"mkfs.ocfs2 --cluster-stack=pcmk --cluster-name={HANDLE} -N 3 -L shared -J size=8M {FS_DISK} </dev/null", 120)
    everywhere(vcs, mount, timeout=90)
    [uuid] = [name for name in lockspaces(vcs, 1) if len(name) == 32]
    assert uuid == uuid.upper() and "-" not in uuid
    assert members(vcs, 1, uuid) == list(NODES)
    file_system_story(vcs, uuid, f"{stack} && {mount}")
    assert "replay journal (node 2" in kmsg(vcs, 1) + kmsg(vcs, 3)
    found = run(vcs, 1, f"fsck.ocfs2 -fn {FS_DISK}", 120)
    assert "All passes succeeded" in found, found


def idle(vcs: VcsCluster, node: int) -> bool:
    """No resync is running or waited for on md0, both legs work."""
    state = run(vcs, node, "cat /sys/block/md0/md/sync_action /sys/block/md0/md/degraded /sys/block/md0/md/array_state").split()
    return state[:2] == ["idle", "0"] and state[2] in ("clean", "active", "active-idle", "write-pending")


def dirty_bits(vcs: VcsCluster, node: int) -> list[int]:
    """Of each node's write-intent bitmap, as they are on the disk."""
    lines = run(vcs, node, f"mdadm -X {LEGS[0]}").splitlines()
    return [int(line.split("dirty")[0].split(",")[-1]) for line in lines if "bits (chunks)" in line]


def legs_differ(vcs: VcsCluster, node: int) -> str:
    """Read each leg past every cache: the data of the first MiB, where the writers are. Empty if they are equal."""
    examined = run(vcs, node, f"mdadm -E {LEGS[0]}")
    offset = next(int(line.split(":")[1].split()[0]) for line in examined.splitlines() if "Data Offset" in line)
    read = f"bs=4096 skip={offset // 8} count=512 iflag=direct 2>/dev/null | sha256sum"
    sums = [run(vcs, node, f"dd if={leg} {read}").split()[0] for leg in LEGS]
    return "" if sums[0] == sums[1] else " and ".join(sums)


@pytest.mark.kernels("6.12")
def test_md_cluster(cluster_on: VcsCluster) -> None:
    """A mirror that every node has: the dead node's unfinished writes are put right by the survivors. The bitmap's chunks are small,
    because the kernel forgets the first one (docs/guides/md-cluster.md), and nobody writes there."""
    vcs = cluster_on
    legs = " ".join(LEGS)
    assemble = f"modprobe -a raid1 md-cluster && mdadm --assemble /dev/md0 {legs}"
    everywhere(vcs, "modprobe -a raid1 md-cluster")
    refused = vcs[1].run(f"mdadm --create /dev/md0 --run --level=mirror --raid-devices=2 --bitmap=clustered {legs}", timeout=30)
    assert refused.rc and "cluster name" in refused.err, "corosync's own libcmap, with corosync not running"
    run(vcs, 1, f"{NAMED} mdadm --create /dev/md0 --run --level=mirror --raid-devices=2 --bitmap=clustered "
        f"--nodes=3 --size=32768 --bitmap-chunk=64K --assume-clean {legs} </dev/null")  # fmt: skip
    for n in (2, 3):
        run(vcs, n, assemble)
    [uuid] = [name for name in lockspaces(vcs, 1) if name.count("-") == 4]
    wait_group(vcs, NODES, uuid)
    jobs = {n: start_blocks(vcs, n, "/dev/md0", 64 * n) for n in NODES}
    assert "reshape" not in run(vcs, 1, "cat /proc/mdstat")

    cut(vcs, VICTIM, uuid)
    written = acknowledged(jobs[VICTIM])
    for n in SURVIVORS:
        before = acknowledged(jobs[n])
        vcs.wait(lambda n=n, before=before: acknowledged(jobs[n]) > before + 100, 60, f"node {n} to write on")  # type: ignore[misc]
        run(vcs, n, f"kill {jobs[n].pid}")
    vcs.wait(lambda: "Initiating recovery" in kmsg(vcs, 1) + kmsg(vcs, 3), 30, "md to recover the dead node's writes")
    vcs.wait(lambda: all(idle(vcs, n) for n in SURVIVORS) and not any(dirty_bits(vcs, 1)), 120, "the mirror to be clean")
    assert legs_differ(vcs, 1) == ""
    for n in SURVIVORS:
        assert check_blocks(vcs, n, "/dev/md0", 64 * VICTIM)["newest"] >= written
        for other in SURVIVORS:
            assert check_blocks(vcs, n, "/dev/md0", 64 * other)["newest"] >= acknowledged(jobs[other])

    back(vcs, VICTIM)
    run(vcs, VICTIM, assemble)
    wait_group(vcs, NODES, uuid)
    assert check_blocks(vcs, VICTIM, "/dev/md0", 64 * 3)["newest"] >= acknowledged(jobs[3])
    # Debian loads md with start_ro=1: before its first write a node tells nobody anything.
    run(vcs, VICTIM, f"kill {start_blocks(vcs, VICTIM, '/dev/md0', 64 * VICTIM).pid}")
    run(vcs, VICTIM, f"{NAMED} mdadm /dev/md0 --fail {LEGS[1]}")
    for n in NODES:  # one node says it, the array's lockspace tells the others
        vcs.wait(lambda n=n: run(vcs, n, "cat /sys/block/md0/md/degraded").strip() == "1", 60, f"node {n} to know of the failed leg")  # type: ignore[misc]
    everywhere(vcs, "mdadm --stop /dev/md0")
    no_trace(vcs, uuid)


@pytest.mark.kernels("6.12", "6.1")
def test_lvmlockd(cluster_on: VcsCluster) -> None:
    """A shared volume group: one node has a volume, the others are refused until it is dead and fenced, and then find all that it wrote."""
    vcs = cluster_on
    use = "echo 'global { use_lvmlockd = 1 }' >>/etc/lvm/lvmlocal.conf && mkdir -p /run/lvm /run/lock/lvm"
    daemon = f"modprobe dm-mod && {use} && lvmlockd -g dlm"
    take, share = "lvchange -aey vgs/lv1", "lvchange -asy vgs/lv1"
    everywhere(vcs, daemon)
    run(vcs, 1, f"vgcreate --shared vgs {LVM_DISK}")
    for n in (2, 3):
        run(vcs, n, "vgchange --lockstart vgs")
    wait_group(vcs, NODES, "lvm_vgs")
    assert {"lvm_global", "lvm_vgs"} <= set(lockspaces(vcs, 1))
    run(vcs, 1, "lvcreate -an -L 40M -n lv1 vgs")
    run(vcs, VICTIM, take)
    for n in SURVIVORS:
        for how in (take, share):
            refused = vcs[n].run(how, timeout=30)
            assert refused.rc == LOCKED_ELSEWHERE and "locked by other host" in refused.err, f"node {n}: {refused}"
    job = start_blocks(vcs, VICTIM, "/dev/vgs/lv1", 0)

    cut(vcs, VICTIM, "lvm_vgs")
    run(vcs, 1, take)
    assert check_blocks(vcs, 1, "/dev/vgs/lv1", 0)["newest"] >= acknowledged(job)
    assert vcs[3].run(take, timeout=30).rc == LOCKED_ELSEWHERE, "the next one has it"

    back(vcs, VICTIM)
    run(vcs, VICTIM, f"{daemon} && vgchange --lockstart vgs")
    wait_group(vcs, NODES, "lvm_vgs")
    assert vcs[VICTIM].run(take, timeout=30).rc == LOCKED_ELSEWHERE
    run(vcs, 1, "lvchange -an vgs/lv1")
    for n in NODES:
        run(vcs, n, share)
    assert vcs[1].run(take, timeout=30).rc == LOCKED_ELSEWHERE, "not alone while others share it"
    for n in NODES:
        assert check_blocks(vcs, n, "/dev/vgs/lv1", 0)["newest"] >= acknowledged(job)
    everywhere(vcs, "vgchange -an vgs && vgchange --lockstop vgs && lvmlockctl -q")
    no_trace(vcs, "lvm_global", "lvm_vgs")


@pytest.mark.kernels("6.12", "6.1")
def test_all_leave(cluster_on: VcsCluster) -> None:
    """After every consumer has stopped, the nodes leave one after the other."""
    all_leave(cluster_on)
