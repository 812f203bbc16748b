# SPDX-License-Identifier: GPL-2.0-only
"""The lab itself: a test is only as good as the machines it believes."""

from __future__ import annotations

import json
import time

import pytest
from harness import ChannelClosed, CommandFailed, KernelSplat, LabTimeout, Machine
from harness.pytest_plugin import Factory

pytestmark = pytest.mark.vm


@pytest.mark.kernels("6.1", "6.12")
def test_a_machine_runs_commands(cluster: Factory, kernel: str) -> None:
    """Commands, files, background processes, time limits and clocks on either kernel."""
    node = cluster(nodes=1, kernel=kernel)[1]
    release = node.run("uname -r", check=True).out
    assert release.startswith(kernel + "."), release

    assert node.run("echo out; echo err >&2; exit 3").rc == 3
    assert node.run(["cat"], stdin="to the agent and back").out == "to the agent and back"
    with pytest.raises(CommandFailed, match="exited 1"):
        node.run("false", check=True)
    late = node.run("sleep 60", timeout=0.5)
    assert late.timed_out and late.ended_ns - late.started_ns < 10e9
    with pytest.raises(LabTimeout):
        node.run("sleep 60", timeout=0.5, check=True)

    big = "x" * 300_000
    node.write("/tmp/new/folder/file", big)
    assert node.read("/tmp/new/folder/file") == big
    with pytest.raises(FileNotFoundError):
        node.read("/tmp/nothing")

    # the channel serves others while one command hangs
    node.spawn("echo started; sleep 30", log="sleeper")
    assert node.clock()["boottime"] > 0
    job = node.spawn("echo hello; exit 7", log="short")
    deadline = time.monotonic() + 20
    while job.rc is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert job.rc == 7
    assert job.log.read_text() == "hello\n"

    offset = node.measure_clock()
    assert offset.error_ns < 20e6
    guest_wall_clock = time.monotonic_ns() - offset.realtime_ns
    assert abs(guest_wall_clock - time.time_ns()) < 3e9  # QEMU's real-time clock counts seconds
    time.sleep(1.0)
    drift = abs(node.measure_clock().boottime_ns - offset.boottime_ns)
    assert drift < 20e6 + offset.error_ns, f"the guest's clock drifts: {drift / 1e6} ms in a second"

    # what the product needs of the system
    node.run("modprobe dlm && modprobe gfs2 && ls /dev/misc/dlm-control /sys/kernel/config/dlm", timeout=60, check=True)


def test_two_machines_share_network_and_disk(cluster: Factory) -> None:
    """The network's faults act per direction, the disk is one disk."""
    c = cluster(nodes=2, shared_disk_mib=64)
    one, two = c[1], c[2]

    def hears(sender: Machine, address: str) -> bool:
        return bool(sender.run(["ping", "-c1", "-W1", address], timeout=20))

    c.wait(lambda: hears(one, two.spec.address), 20, "node 1 to reach node 2")
    c.network.block(1, 2, oneway=True)
    assert not hears(one, two.spec.address)
    c.network.heal()
    c.wait(lambda: hears(one, two.spec.address), 20, "node 1 to reach node 2 again")
    c.network.isolate(2)
    assert not hears(two, one.spec.address)
    c.network.heal()
    c.network.delay(1, 2, seconds=0.2)
    start = time.monotonic()
    c.wait(lambda: hears(one, two.spec.address), 20, "a slow answer")
    assert time.monotonic() - start > 0.4

    one.run("printf written-by-one | dd of=/dev/vdd bs=512 conv=sync oflag=direct", check=True)
    seen = two.run("dd if=/dev/disk/by-id/virtio-shared0 bs=512 count=1 iflag=direct", check=True).out
    assert seen.startswith("written-by-one")


def test_power(cluster: Factory) -> None:
    """A cut takes the machine with its I/O, its last words stay, and it boots afresh."""
    c = cluster(nodes=2)
    one, two = c[1], c[2]
    before = two.run("cat /proc/sys/kernel/random/boot_id", check=True).out
    words = {"t": two.clock()["boottime"], "node": 2, "source": "test", "event": "last words"}
    two.write("/run/vcs/events.jsonl", json.dumps(words) + "\n")
    c.wait(two.events, 5, "the event to be streamed")
    gone = two.power_off()
    assert not two.on and gone > 0
    with pytest.raises(ChannelClosed):
        two.run("true")
    told = [e for e in c.timeline.entries() if e.event == "last words"]
    assert told and told[0].host_ns < gone

    two.boot()
    assert two.run("cat /proc/sys/kernel/random/boot_id", check=True).out != before

    frozen = two.freeze()
    time.sleep(1.0)
    resumed = two.resume()
    guest_jump = two.measure_clock().boottime_ns
    assert two.offset is not None
    assert abs(guest_jump - two.offset.boottime_ns) < 0.5e9, "the guest's clock must have run on"
    assert resumed - frozen > 0.9e9

    # the fence agent cuts from a guest, and answers when the victim is gone
    ask = "printf 'action={}\\nplug=node2\\n' | fence_lab"
    assert one.run(ask.format("status")).rc == 0
    c.power.set_broken(2)
    assert one.run(ask.format("off")).rc == 1
    assert two.on
    c.power.set_working()
    fenced = one.run(ask.format("off"))
    assert fenced.rc == 0 and not two.on
    assert c.power.history[-1].gone_ns < fenced.ended_ns
    assert one.run(ask.format("status")).rc == 2
    assert one.run(ask.format("reboot"), timeout=60).rc == 0
    two.wait_ready()
    assert two.run("true")
    two.run("nohup sh -c 'sleep 0.2; busybox poweroff -f' >/dev/null 2>&1 &")
    two.wait_off(30)
    assert two.stop_reason == "guest-shutdown"


def test_kernel_reports_are_seen(cluster: Factory) -> None:
    """Negative control: a planted report, and a real panic, are found; allowed ones are not held against the test."""
    c = cluster(nodes=1)
    node = c[1]
    c.check_splats()
    node.write("/dev/kmsg", "<4>WARNING: CPU: 0 PID: 1 at planted by the test\n")
    c.wait(lambda: c.splats.found, 10, "the planted warning")
    with pytest.raises(KernelSplat, match="planted by the test"):
        c.check_splats()
    c.splats.allow("planted by the test")
    c.check_splats()

    node.spawn("echo c > /proc/sysrq-trigger", log="crash")
    node.wait_off(30)
    with pytest.raises(KernelSplat, match="sysrq triggered crash"):
        c.check_splats()
    c.splats.allow("sysrq triggered crash")
    c.check_splats()
