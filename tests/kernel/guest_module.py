# SPDX-License-Identifier: GPL-2.0-only
"""Loading and unloading vcs.ko, and its C interface through the test consumer module. Runs as root inside a virtual
machine (tests/kernel/test_contract_vm.py starts it)."""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.contract_world import World, refused
from tests.kernel.guest_contract import KernelBackend
from vcs.errors import SwitchError
from vcs.model import GroupFlags, GroupState, Phase
from vcs.netlink import KernelSwitch

MODULES = Path("/proc/modules")


def loaded(name: str = "vcs") -> bool:
    return any(line.split()[0] == name for line in MODULES.read_text().splitlines())


def unload(name: str = "vcs") -> str:
    """What rmmod complained of; empty when the module is gone."""
    return subprocess.run(["rmmod", name], capture_output=True, text=True, check=False).stderr


def load(name: str = "vcs", *options: str) -> None:
    subprocess.run(["modprobe", name, *options], check=True, timeout=30)


@pytest.fixture
def backend() -> Iterator[KernelBackend]:
    backend = KernelBackend()
    yield backend
    if loaded():
        backend.clean()
    else:
        load()


def test_the_module_is_not_unloaded_under_anybody(backend: KernelBackend) -> None:
    world = World(backend, attach=False)
    consumer = world.consumer()
    assert "in use" in unload()
    world.attach()
    assert "in use" in unload()
    world.view()
    world.cycle(consumer, 10)
    assert world.group().finished_event == 10


def test_without_the_module_a_call_says_what_to_do(backend: KernelBackend) -> None:
    port = backend.port()
    before = port.info().incarnation
    assert unload() == ""
    with pytest.raises(SwitchError, match="modprobe vcs") as caught:
        KernelSwitch()
    assert caught.value.errno == errno.ENOENT
    with refused(errno.ENOENT):
        port.info()
    assert not loaded()
    load()
    assert KernelSwitch().info().incarnation not in (0, before)


def test_loading_and_unloading_again_and_again(backend: KernelBackend) -> None:
    for _ in range(5):
        assert unload() == ""
        load()
        world = World(KernelBackend())
        world.view()
        world.member(10).leave()
        world.left()
        world.wait_gone()
        world.provider.detach(world.handle, world.session)
        world.provider.cluster_del(world.handle)


# --- KUnit ------------------------------------------------------------------------------------------------------

KUNIT = {"vcs_lease": 4, "vcs_group": 4, "vcs_heartbeat": 4}
"Suites and how many cases each has: the decisions, compiled once more by themselves (kmod/tests/kunit_*.c)."


def test_the_kernel_s_own_unit_tests() -> None:
    """On a kernel with KUnit by it; else the module runs them as it is loaded, and is not loaded when one fails."""
    load("vcs_kunit")
    passed = Path("/sys/module/vcs_kunit/parameters/passed")
    if passed.exists():
        assert int(passed.read_text()) == sum(KUNIT.values())
    else:
        for suite, cases in KUNIT.items():
            said = Path(f"/sys/kernel/debug/kunit/{suite}/results").read_text()
            assert len(re.findall(r"^ +ok \d+ ", said, re.MULTILINE)) == cases, said
            assert "not ok" not in said and "SKIP" not in said, said
    assert unload("vcs_kunit") == ""


# --- the C interface, through vcs_test_consumer.ko --------------------------------------------------------------

STATE = Path("/sys/kernel/debug/vcs_test_consumer/state")
ACK = Path("/sys/kernel/debug/vcs_test_consumer/ack")
CONSUMER = "vcs_test_consumer"


class KernelConsumer:
    """The module as a consumer of the group `kernel` in a world's cluster."""

    def __init__(self, world: World, *options: str) -> None:
        self.world = world
        load(CONSUMER, f"cluster={world.handle}", *options)

    def seen(self) -> dict[str, int]:
        return {key: int(value) for key, value in (line.split() for line in STATE.read_text().splitlines())}

    def wait(self, **expected: int) -> None:
        """Until the module has seen all of this."""
        self.world.wait(f"{CONSUMER} to see {expected}", lambda: expected.items() <= self.seen().items())

    def unload(self) -> None:
        """Its exit leaves the group and waits for that: the provider has to agree meanwhile."""
        groups = self.world.reader.groups(self.world.handle)
        child = subprocess.Popen(["rmmod", CONSUMER])
        try:
            if self.world.provider_state() == "ATTACHED" and groups and groups[0].state is not GroupState.LOST:
                self.world.wait_state(GroupState.LEAVING, "kernel")
                self.world.left("kernel")
            assert child.wait(30) == 0
        finally:
            child.kill()
            child.wait()


@pytest.fixture
def world(backend: KernelBackend) -> Iterator[World]:
    world = World(backend)
    yield world
    if loaded(CONSUMER):
        # A test failed: without a provider its exit needs nobody.
        world.provider.close()
        subprocess.run(["rmmod", CONSUMER], timeout=30, check=False)


def test_a_kernel_consumer_goes_through_an_event(world: World) -> None:
    world.view()
    consumer = KernelConsumer(world)
    world.wait("the group", lambda: bool(world.reader.groups(world.handle)))
    assert world.group("kernel").state is GroupState.JOINING
    world.stop(10, "kernel")
    world.wait("the stop's acknowledgement", lambda: world.group("kernel").stopped)
    world.start(10, world.me, world.peer, name="kernel")
    world.wait("the start's acknowledgement", lambda: world.group("kernel").acked_phase is Phase.START)
    world.finish(10, "kernel")
    consumer.wait(stops=1, starts=1, finishes=1, event=10, event_members=2, lost=0, left=0)
    assert consumer.seen()["ack_err"] == 0
    assert consumer.seen()["nested"] == consumer.seen()["view_older"] == consumer.seen()["reclaim_fs"] == 0
    consumer.unload()
    assert world.reader.groups(world.handle) == []


def test_a_kernel_consumer_is_notified_of_views(world: World) -> None:
    world.view()
    consumer = KernelConsumer(world, "group=")
    generation = world.view(world.me)
    consumer.wait(view_generation=generation, view_members=1)
    for _ in range(50):
        generation = world.view()
    consumer.wait(view_generation=generation, view_members=2)
    assert consumer.seen()["nested"] == consumer.seen()["view_older"] == 0
    consumer.unload()


def test_a_slow_kernel_consumer_holds_the_start_and_is_superseded(world: World) -> None:
    world.view()
    consumer = KernelConsumer(world, "ack=0")
    world.stop(10, "kernel")
    consumer.wait(stops=1, event=10)
    with refused(errno.EPROTO):
        world.start(10, name="kernel")
    world.stop(11, "kernel")
    consumer.wait(stops=2, event=11)
    with pytest.raises(OSError) as caught:
        ACK.write_text("10")
    assert caught.value.errno == errno.ESTALE
    assert not world.group("kernel").stopped
    ACK.write_text("11")
    assert world.group("kernel").stopped
    world.start(11, name="kernel")
    consumer.wait(starts=1, event=11)
    consumer.unload()


def test_a_kernel_consumer_acknowledges_later_from_elsewhere(world: World) -> None:
    world.view()
    consumer = KernelConsumer(world, "ack_delay_ms=100")
    for times, event in ((1, 10), (2, 11)):
        world.stop(event, "kernel")
        world.wait("the stop's acknowledgement", lambda: world.group("kernel").stopped)
        world.start(event, name="kernel")
        world.wait("the start's", lambda: world.group("kernel").acked_phase is Phase.START)
        world.finish(event, "kernel")
        # A newer event would replace one whose callback has not run yet.
        consumer.wait(stops=times, starts=times, finishes=times)
    consumer.unload()


def test_a_kernel_consumer_is_told_that_its_provider_was_lost(world: World) -> None:
    """S15: lost() once, and the module can go at once, since leaving needs nobody (S21)."""
    world.view()
    consumer = KernelConsumer(world)
    world.stop(10, "kernel")
    consumer.wait(stops=1)
    world.lose()
    consumer.wait(lost=1, left=0)
    assert world.group("kernel").state is GroupState.LOST
    world.attach()
    assert world.group("kernel").state is GroupState.LOST
    assert "in use" in unload()
    consumer.unload()
    assert world.reader.groups(world.handle) == []


def test_a_kernel_consumer_may_leave_from_within_a_callback(world: World) -> None:
    world.view()
    consumer = KernelConsumer(world, "leave_in_lost=1")
    world.lose()
    consumer.wait(lost=1, left=1, left_err=0)
    assert consumer.seen()["after_left"] == 0
    consumer.unload()


def test_a_refused_kernel_consumer_is_told_why(world: World) -> None:
    consumer = KernelConsumer(world)
    world.left("kernel", errno.EPERM)
    consumer.wait(left=1, left_err=-errno.EPERM)
    consumer.unload()


def test_a_kernel_consumer_pins_its_cluster_and_the_module(world: World) -> None:
    consumer = KernelConsumer(world, "group=")
    assert "in use" in unload()
    world.provider.detach(world.handle, world.session)
    with refused(errno.EBUSY):
        world.provider.cluster_del(world.handle)
    consumer.unload()
    world.provider.cluster_del(world.handle)


def test_a_kernel_consumer_does_not_take_a_held_group(world: World) -> None:
    world.consumer("kernel", GroupFlags.PERSISTENT)
    done = subprocess.run(
        ["modprobe", CONSUMER, f"cluster={world.handle}"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert not loaded(CONSUMER)
