# SPDX-License-Identifier: GPL-2.0-only
"""Rules of the switch that need a kernel's own view of things: sockets and portids, consumers and providers in the kernel that
hang or are wrong, tracepoints, suspend. Runs inside a virtual machine, like guest_module.py; tests/kernel/rules.py says which
test is for which rule.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.contract_world import World, refused
from tests.kernel.guest_contract import SYSFS, KernelBackend
from tests.kernel.guest_module import CONSUMER, KernelConsumer, load, loaded, unload
from vcs.model import GroupFlags, GroupState, Phase, RingId
from vcs.netlink import KernelSwitch, codec

SAMPLE, PROVIDER = "vcs_sample_consumer", "vcs_test_provider"
TRACING = Path("/sys/kernel/tracing")
GO = Path("/sys/kernel/debug/vcs_test_consumer/go")
NETLINK_GENERIC = 16
EXPECTED = r"WARNING: .* vcs_group_leave_sync\+"
"What a test here provokes on purpose."


@pytest.fixture
def world() -> Iterator[World]:
    backend = KernelBackend()
    world = World(backend)
    yield world
    if loaded(CONSUMER):
        GO.write_text("1")
    world.provider.close()
    for module in (CONSUMER, SAMPLE):
        if loaded(module):
            subprocess.run(["rmmod", module], timeout=30, check=False)
    backend.clean()
    if loaded(PROVIDER):
        unload(PROVIDER)


# --- rule 1: hints ----------------------------------------------------------------------------------------------


def test_a_hint_says_what_changed_and_nothing_more(world: World) -> None:
    generation = world.view()
    world.consumer()
    listener = world.backend.port()
    assert isinstance(listener, KernelSwitch)
    listener.hints()
    world.stop(10)
    found: list[dict[str, object]] = []

    def there() -> bool:
        for message in listener._hints().read():
            command, attributes = codec().decode(message)
            found.extend([dict(attributes)] if command == "group-hint" and attributes["event"] == 10 else [])
        return bool(found)

    world.wait("the group's hint", there)
    assert found[0] == {"handle": world.handle, "group": "g", "generation": generation, "event": 10, "phase": Phase.STOP}


# --- rules 2 and 5: nobody waits --------------------------------------------------------------------------------


def test_a_stop_that_hangs_holds_neither_a_healthy_group_nor_a_command(world: World) -> None:
    world.view()
    consumer = KernelConsumer(world, "hang=1")
    load(SAMPLE, f"cluster={world.handle}")
    world.stop(10, "kernel")
    consumer.wait(stops=1)
    world.stop(11, "sample")
    world.wait("the healthy group's stop", lambda: world.group("sample").stopped)
    world.start(11, world.me, world.peer, name="sample")
    world.wait("its start", lambda: world.group("sample").acked_phase is Phase.START)
    world.finish(11, "sample")
    world.stop(12, "kernel")
    assert consumer.seen()["stops"] == 1
    assert not world.group("kernel").stopped
    GO.write_text("1")
    consumer.wait(stops=2, event=12)
    world.wait("the answer to the newest", lambda: world.group("kernel").stopped)
    consumer.unload()


def test_to_wait_for_the_end_within_a_callback_warns_and_returns(world: World) -> None:
    """It would wait for itself. The warning, which this kernel's log then holds, is one that the test outside expects (EXPECTED)."""
    world.view()
    consumer = KernelConsumer(world, "wait_in_lost=1")
    world.lose()
    consumer.wait(lost=1, left=1, left_err=0)
    assert consumer.seen()["after_left"] == 0
    log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    assert re.search(EXPECTED, log), log[-4000:]
    consumer.unload()


def test_the_sample_consumer_joins_and_leaves(world: World) -> None:
    """docs/sample_consumer.c, as it is."""
    world.view()
    load(SAMPLE, f"cluster={world.handle}")
    world.stop(10, "sample")
    world.wait("the stop's acknowledgement", lambda: world.group("sample").stopped)
    world.start(10, name="sample")
    world.wait("the start's", lambda: world.group("sample").acked_phase is Phase.START)
    world.finish(10, "sample")
    assert world.group("sample").state is GroupState.MEMBER
    child = subprocess.Popen(["rmmod", SAMPLE])
    world.wait_state(GroupState.LEAVING, "sample")
    world.left("sample")
    assert child.wait(30) == 0
    assert world.reader.groups(world.handle) == []


def test_a_name_is_free_while_its_last_consumer_hangs(world: World) -> None:
    consumer = KernelConsumer(world, "hang=1")
    world.left("kernel", errno.EPERM)
    successor = world.consumer("kernel")
    assert consumer.seen()["left"] == 0
    assert not successor.joined.taken_over
    assert world.group("kernel").owner == "tester"
    GO.write_text("1")
    consumer.wait(left=1, left_err=-errno.EPERM, after_left=0)
    assert unload(CONSUMER) == ""
    assert world.group("kernel").state is GroupState.JOINING
    assert (SYSFS / world.handle / "groups" / "kernel" / "owner").read_text() == "tester\n"


# --- rule 4: what is stale is counted and traced ------------------------------------------------------------------


@contextmanager
def tracing(*events: str) -> Iterator[None]:
    (TRACING / "trace").write_text("")
    for event in events:
        (TRACING / "events/vcs" / event / "enable").write_text("1")
    try:
        yield
    finally:
        for event in events:
            (TRACING / "events/vcs" / event / "enable").write_text("0")


def test_what_is_stale_is_counted_and_traced(world: World) -> None:
    world.view()
    consumer = world.member(10)
    count = SYSFS / world.handle / "provider" / "stale_acks"
    before = int(count.read_text())
    with tracing("vcs_group_ack_stale", "vcs_refuse"):
        with refused(errno.ESTALE):
            consumer.ack(9, Phase.STOP)
        with refused(errno.ESTALE):
            world.stop(8)
        with refused(errno.ESTALE):
            world.provider.group_stop(world.handle, world.session + 1, "g", 11)
    said = (TRACING / "trace").read_text()
    assert int(count.read_text()) == before + 3
    assert said.count("vcs_group_ack_stale: ") == 2
    assert said.count(f"err=-{errno.ESTALE} ") == 3
    assert "group=g current=10 event=9 phase=1" in said


# --- rule 6: sockets ----------------------------------------------------------------------------------------------


def test_a_portid_that_is_used_again_is_not_its_last_owner(world: World) -> None:
    world.consumer("stays")
    port = world.backend.port()
    assert isinstance(port, KernelSwitch)
    held = World(world.backend, attach=False)
    held.attach(port=port)
    (portid, _) = port._socket._sock.getsockname()
    port.close()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as squatter:
        squatter.bind((portid, 0))
        held.wait("the provider to be an orphan", lambda: held.provider_state() == "ORPHAN")
        assert squatter.getsockname()[0] == portid
    held.provider = world.backend.port()
    assert world.provider_state() == "ATTACHED"
    assert world.group("stays").state is GroupState.JOINING


def test_a_descriptor_that_was_handed_on_keeps_the_seat(world: World) -> None:
    """The socket's death counts, not its first owner's; and whoever knows the session speaks for the seat."""
    assert isinstance(world.provider, KernelSwitch)
    copy = os.dup(world.provider._socket.fileno())
    world.provider.close()
    other = world.backend.port()
    other.view_set(world.handle, world.session, RingId(5, 1), True, [world.me])
    assert world.provider_state() == "ATTACHED"
    os.close(copy)
    world.wait("the provider to be an orphan", lambda: world.provider_state() == "ORPHAN")
    with refused(errno.ESTALE):
        other.view_set(world.handle, world.session, RingId(9, 1), True, [world.me])
    world.provider = other


def test_descriptors_are_closed_on_exec(world: World) -> None:
    port = world.backend.port()
    assert isinstance(port, KernelSwitch)
    for fd in (port._socket.fileno(), port.hints_fd()):
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


# --- rules 10, 11: provider types -----------------------------------------------------------------------------------


def attach(world: World, kind: str, lease_ms: int = 0) -> int:
    port = world.provider
    assert isinstance(port, KernelSwitch)
    answer = port._do("provider-attach", handle=world.handle, provider=kind, lease_ms=lease_ms)
    return int(answer["session"])


def attached() -> int:
    return int(Path(f"/sys/module/{PROVIDER}/parameters/attached").read_text())


def test_an_unknown_provider_type_is_not_loaded_for_the_caller(world: World) -> None:
    world.provider.detach(world.handle, world.session)
    with refused(errno.ENOENT, attribute="provider"):
        attach(world, "nothing")
    assert world.provider_state() == "NONE"
    world.attach()


def test_a_provider_type_is_judged_and_pinned_while_it_is_attached(world: World) -> None:
    """Loading the module is most of the test: it tries every bad registration before its own."""
    world.provider.detach(world.handle, world.session)
    load(PROVIDER)
    refcount = SYSFS / "providers" / "test" / "refcount"
    with refused(errno.EOPNOTSUPP, attribute="lease-ms"):
        attach(world, "test", lease_ms=1000)
    with refused(errno.EBADMSG):
        Path(f"/sys/module/{PROVIDER}/parameters/attach_err").write_text(str(errno.EBADMSG))
        attach(world, "test")
    assert (attached(), refcount.read_text(), world.provider_state()) == (0, "0\n", "NONE")
    world.attach()
    world.die()
    with refused(errno.EBADMSG):
        attach(world, "test")
    assert world.provider_state() == "ORPHAN", "its groups would not be told when their lease ends"
    Path(f"/sys/module/{PROVIDER}/parameters/attach_err").write_text("0")
    world.session = attach(world, "test")
    assert (attached(), refcount.read_text()) == (1, "1\n")
    assert "in use" in unload(PROVIDER)
    with refused(errno.EOPNOTSUPP, attribute="handle"):
        world.consumer()
    world.view()
    world.provider.detach(world.handle, world.session)
    assert (attached(), refcount.read_text()) == (0, "0\n")
    world.session = attach(world, "test")
    world.die()
    world.wait("its detach", lambda: attached() == 0)
    assert unload(PROVIDER) == ""
    assert not (SYSFS / "providers" / "test").exists()


# --- rule 12: dumps --------------------------------------------------------------------------------------------------


def test_a_dump_of_ten_thousand_nodes_is_whole(world: World) -> None:
    """No view is so large today; the dump must be ready for it, so a provider of our own installs one."""
    world.provider.detach(world.handle, world.session)
    load(PROVIDER)
    world.session = attach(world, "test")
    Path(f"/sys/module/{PROVIDER}/parameters/nodes").write_text("10000")
    view = world.reader.view(world.handle)
    assert [m.nodeid for m in view.members] == list(range(1, 10_001))
    assert all(m.incarnation == m.nodeid for m in view.members)
    world.provider.detach(world.handle, world.session)
    assert unload(PROVIDER) == ""


# --- rule 15: suspend -------------------------------------------------------------------------------------------------


def test_suspend_is_refused_while_a_lease_is_armed(world: World) -> None:
    other = World(world.backend, lease_ms=60_000)
    other.view()
    other.provider.lease_renew(other.handle, other.session, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    other.member(10, flags=GroupFlags.NEEDS_FENCE)
    assert (SYSFS / other.handle / "lease" / "state").read_text() == "armed\n"
    state = Path("/sys/power/state")
    assert "freeze" in state.read_text().split()
    with pytest.raises(OSError) as caught:
        state.write_text("freeze")
    assert caught.value.errno == errno.EBUSY
    assert other.provider_state() == "ATTACHED"
