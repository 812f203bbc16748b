# SPDX-License-Identifier: GPL-2.0-only
"""The contract against the module, and what only a kernel can be asked. Runs as root inside a virtual machine with
vcs.ko loaded (tests/kernel/test_contract_vm.py starts it); it makes and deletes clusters, so nowhere else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import select
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bridge.switch import Reader
from tests.kernel.contract import *  # noqa: F403  (the tests)
from tests.kernel.contract_lease import *  # noqa: F403
from tests.kernel.contract_world import WAIT_MS, Backend, World, refused
from vcs import _spec
from vcs.errors import SwitchError
from vcs.genl import HEADER, NLMSG_DONE, open_socket
from vcs.model import GroupFlags, GroupState, Level, Member, Phase, RingId
from vcs.netlink import KernelSwitch, codec

SYSFS = Path("/sys/kernel/vcs")
LOOK_AGAIN_MS = 250
"Not everything that a test waits for is hinted (a free claim is not)."
NOBODY = 65534
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
FUZZ_MESSAGES = 3000


class KernelBackend:
    """The module that is loaded here."""

    def __init__(self) -> None:
        self._ports: list[KernelSwitch] = []
        self._watch = self.port()
        self._watch.hints()

    def port(self) -> KernelSwitch:
        port = KernelSwitch()
        self._ports.append(port)
        return port

    def tight_port(self) -> KernelSwitch:
        port = KernelSwitch(hint_buffer=1)
        self._ports.append(port)
        return port

    @contextmanager
    def unprivileged(self) -> Iterator[KernelSwitch]:
        os.seteuid(NOBODY)
        try:
            yield self.port()
        finally:
            os.seteuid(0)

    def now_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def advance(self, ms: int) -> None:
        # Time itself is what these tests need, there is no event to wait for.
        time.sleep(ms / 1000)

    def wait(self, what: str, condition: Callable[[], bool], port: Reader, limit_ms: int = WAIT_MS) -> None:
        deadline = time.monotonic() + limit_ms / 1000
        poll = select.poll()
        poll.register(self._watch.hints_fd(), select.POLLIN)
        while True:
            self._watch.hints()
            if condition():
                return
            if time.monotonic() > deadline:
                pytest.fail(f"waited {limit_ms} ms for {what}")
            poll.poll(LOOK_AGAIN_MS)

    def resets(self, handle: str) -> int:
        assert (SYSFS / handle / "lease" / "dry_run").read_text() == "1\n", "the module must be loaded with dry_run=1"
        return int((SYSFS / handle / "lease" / "resets").read_text())

    def clean(self) -> None:
        """Close every socket and delete every cluster, as an administrator could: orphans are taken over and left."""
        for port in self._ports:
            port.close()
        self._watch = self.port()
        self._watch.hints()
        self.wait("the clusters to be deleted", self._cleaned, self._watch)
        for port in self._ports:
            port.close()

    def _cleaned(self) -> bool:
        clusters = self._watch.clusters()
        for cluster in clusters:
            for group in self._watch.groups(cluster.handle):
                if group.orphan_since_ms:
                    joined = self._watch.join(
                        cluster.handle, group.name, group.level, group.flags, group.owner
                    )
                    self._watch.leave(cluster.handle, joined.session, group.name)
            with suppress(SwitchError):
                self._watch.cluster_del(cluster.handle)
        return not clusters


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = KernelBackend()
    yield backend
    backend.clean()


# --- requests that no port would send ---------------------------------------------------------------------------

SAMPLES: dict[str, Any] = {
    "name": "n", "nodeid": 1, "session": 7, "ring-seq": 1, "ring-rep": 1, "valid-from-ns": 1, "group": "g",
    "event": 1, "phase": 1, "incarnation": 1, "claim": "c",
    "member": [{"nodeid": 1, "incarnation": 1}],
}
MISSING = [
    (op.name, name)
    for op in _spec.OPS if op.do
    for name in op.do if name not in _spec.OPTIONAL and (op.name, name) not in _spec.OPTIONAL_IN
]


def raw(port: KernelSwitch, command: str, values: dict[str, Any]) -> None:
    port._do(command, **values)


@pytest.mark.parametrize(("command", "missing"), MISSING, ids=[f"{c}-{m}" for c, m in MISSING])
def test_a_missing_attribute_is_named(world: World, command: str, missing: str) -> None:
    (op,) = [o for o in _spec.OPS if o.name == command]
    assert op.do is not None
    values = {"handle": world.handle, **SAMPLES}
    values = {name: values[name] for name in op.do if name in values and name != missing}
    with refused(errno.EINVAL, attribute=missing):
        raw(KernelSwitch(), command, values)


@pytest.mark.parametrize("command", ["view-get", "group-get"])
def test_a_dump_needs_its_cluster(backend: Backend, command: str) -> None:
    """Which attribute it was cannot be said on 6.1, where a dump has no extack."""
    with refused(errno.EINVAL):
        KernelSwitch()._dump(command)


def body(command: str, *attributes: bytes) -> bytes:
    return struct.pack("=BBH", _spec.COMMANDS[command], _spec.VERSION, 0) + b"".join(attributes)


def attribute(kind: int, payload: bytes, length: int | None = None) -> bytes:
    length = 4 + len(payload) if length is None else length
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-len(payload) % 4)


def kind_of(name: str, attribute_set: str = "vcs") -> int:
    return next(a.value for a in _spec.ATTRIBUTE_SETS[attribute_set] if a.name == name)


HANDLE = attribute(kind_of("handle"), b"raw\0")
NAME = attribute(kind_of("name"), b"raw\0")
NODEID = attribute(kind_of("nodeid"), struct.pack("=I", 1))
MALFORMED = {
    "attribute of a newer version": body("cluster-add", HANDLE, NAME, NODEID, attribute(500, b"xxxx")),
    "attribute of another command": body("cluster-add", HANDLE, NAME, NODEID, attribute(kind_of("event"), b"x" * 8)),
    "string without an end": body("cluster-add", attribute(kind_of("handle"), b"raw"), NAME, NODEID),
    "number too short": body("cluster-add", HANDLE, NAME, attribute(kind_of("nodeid"), b"\1\0")),
    "number too long": body("cluster-add", HANDLE, NAME, attribute(kind_of("nodeid"), b"\1" + b"\0" * 7)),
    "attribute longer than the message": body(
        "cluster-add", HANDLE, NAME, attribute(kind_of("nodeid"), b"\1\0\0\0", 400)
    ),
    "bytes behind the end": body("cluster-add", HANDLE, NAME, NODEID) + b"\1\0\0",
    "member that is no nest": body("view-set", HANDLE, attribute(kind_of("member"), b"\1\0\0\0")),
    "unknown command": struct.pack("=BBH", 200, _spec.VERSION, 0),
    "a hint as a command": body("group-hint", HANDLE),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests_are_refused(backend: Backend, case: str) -> None:
    port = KernelSwitch()
    with refused(errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP):
        port._socket.request(port._family, 0, MALFORMED[case], lambda kind, nest: "")
    assert "raw" not in {c.handle for c in port.clusters()}


def test_random_requests_change_nothing_for_others(world: World) -> None:
    """Mutations of real requests, from a fixed seed: any errno is right, a crash or a changed group is not."""
    world.view()
    world.member(10)
    before = world.group()
    rng = random.Random(20240607)
    port = world.backend.port()
    assert isinstance(port, KernelSwitch)
    requests = []
    for op in _spec.OPS:
        if op.do is not None:
            values = {"handle": world.handle, **SAMPLES}
            requests.append(codec().encode(op.name, {n: values[n] for n in op.do if n in values}))
    outcomes: dict[int, int] = {}
    for _ in range(FUZZ_MESSAGES):
        data = bytearray(rng.choice(requests))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(1, len(data))] = rng.choice((0, 1, 0x80, 0xFF, rng.randrange(256)))
        if rng.random() < 0.2:
            del data[rng.randrange(4, len(data) + 1) :]
        try:
            port._socket.request(port._family, rng.choice((0, 0, 0, 0x300)), bytes(data), lambda kind, nest: "")
            outcomes[0] = outcomes.get(0, 0) + 1
        except SwitchError as e:
            assert e.errno not in (errno.ETIMEDOUT, errno.EIO), e
            outcomes[e.errno] = outcomes.get(e.errno, 0) + 1
    assert world.group() == before
    assert len(outcomes) >= 3, f"the mutations reach too little: {outcomes}"


# --- rights -----------------------------------------------------------------------------------------------------


def test_a_socket_opened_without_rights_stays_without(world: World) -> None:
    """A privileged program that is made to write to somebody's descriptor must not act for him."""
    os.seteuid(NOBODY)
    try:
        port = KernelSwitch()
    finally:
        os.seteuid(0)
    with refused(errno.EPERM):
        port.cluster_add("mine", "n", 1)
    port.close()


def in_child(flags: int, code: str) -> str:
    """Output of Python code in a process with new namespaces."""
    libc = ctypes.CDLL(None, use_errno=True)

    def unshare() -> None:
        if libc.unshare(flags):
            os._exit(99)

    source = f"from vcs.netlink import KernelSwitch\nfrom vcs.errors import SwitchError\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", source], preexec_fn=unshare, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_root_of_a_container_has_no_rights(world: World) -> None:
    """Rule 8: CAP_SYS_ADMIN in the initial user namespace."""
    out = in_child(CLONE_NEWUSER, f"""
port = KernelSwitch()
print(port.group({world.handle!r}, 'g').name if port.groups({world.handle!r}) else 'none')
try:
    port.cluster_add('mine', 'n', 1)
    print('added')
except SwitchError as e:
    print(e.errno)
""")
    assert out.split() == ["none", str(errno.EPERM)], out


def test_another_network_namespace_has_no_switch(backend: Backend) -> None:
    out = in_child(CLONE_NEWNET, "try:\n KernelSwitch()\nexcept SwitchError as e:\n print(e.errno)")
    assert out.split() == [str(errno.ENOENT)], out


# --- processes that die -----------------------------------------------------------------------------------------

PROVIDER = """
import sys
from vcs.netlink import KernelSwitch
port = KernelSwitch()
print(port.attach(sys.argv[1], 0).session, flush=True)
sys.stdin.read()
"""


def test_a_killed_provider_is_noticed_at_once(backend: Backend, record_property: Callable[..., None]) -> None:
    world = World(backend, attach=False)
    consumer = world.consumer()
    child = subprocess.Popen(
        [sys.executable, "-c", PROVIDER, world.handle], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    world.session = int(child.stdout.readline())
    assert world.provider_state() == "ATTACHED"
    assert world.group().state is GroupState.JOINING
    killed = time.monotonic_ns()
    os.kill(child.pid, signal.SIGKILL)
    world.wait("the provider to be an orphan", lambda: world.provider_state() == "ORPHAN")
    record_property("killed_to_orphan_us", (time.monotonic_ns() - killed) // 1000)
    assert world.group().state is GroupState.JOINING
    child.communicate()
    consumer.leave()
    world.wait_gone()


# --- reading while others write ---------------------------------------------------------------------------------


def test_a_view_is_never_torn(world: World) -> None:
    """Rule 12, with a writer beside: the incarnations of all but this node tell which view a member belongs to."""
    views = [(world.me, *(Member(n, r << 32 | n) for n in range(2, 401))) for r in (1, 2)]
    writer = KernelSwitch()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for i in range(6):
                world.ring += 1
                writer.view_set(world.handle, world.session, RingId(world.ring, 1), True, views[i % 2])
        except BaseException as e:
            failed.append(e)

    world.view(*views[1])
    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    while thread.is_alive():
        members = world.reader.view(world.handle).members
        assert members in views
        reads += 1
    thread.join()
    assert not failed
    assert reads > 1


def test_groups_are_read_whole_while_they_change(world: World) -> None:
    """A dump that was interrupted is read again: the names seen are those of one moment, before or after."""
    world.view()
    names = [f"stays{n:03}" for n in range(120)]
    keeper = world.backend.port()
    for name in names:
        keeper.join(world.handle, name, Level.USER, GroupFlags.NONE, "keeper")
    stop = threading.Event()
    failed: list[BaseException] = []

    def churn() -> None:
        try:
            n = 0
            while not stop.is_set():
                n += 1
                joined = keeper.join(world.handle, f"comes{n}", Level.USER, GroupFlags.NONE, "churn")
                keeper.leave(world.handle, joined.session, f"comes{n}")
                world.provider.group_left(world.handle, world.session, f"comes{n}")
                stop.wait(0.05)
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(10):
            seen = [g.name for g in world.reader.groups(world.handle)]
            assert len(seen) == len(set(seen))
            assert set(names) <= set(seen)
    finally:
        stop.set()
        thread.join()
    assert not failed


# --- sysfs, figures ---------------------------------------------------------------------------------------------


def test_sysfs_shows_the_same(world: World) -> None:
    world.view(world.me, Member(2, 5), Member(3, 5), Member(7, 5))
    world.member(10, "shown")
    folder = SYSFS / world.handle
    expected = {
        "cluster_name": f"name-of-{world.handle}", "nodeid": "1", "provider/type": "user",
        "provider/state": "attached", "view/generation": str(world.reader.view(world.handle).generation),
        "view/quorate": "1", "view/nr_members": "4", "view/members": "1-3,7", "groups/shown/owner": "tester",
        "groups/shown/state": "member", "groups/shown/phase": "finish", "groups/shown/nr_members": "1",
    }
    assert {name: (folder / name).read_text().strip() for name in expected} == expected
    for path in SYSFS.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o444, path
            path.read_text()
    world.provider.close()


def test_cost_of_a_call(world: World, record_property: Callable[..., None]) -> None:
    """For the report: microseconds of one call, whole, of the system call alone, and of a dump of 1,000 members."""
    request = codec().encode("info-get", {})
    sock = open_socket()
    family = KernelSwitch()._family
    calls: dict[str, list[float]] = {"syscall": [], "info": [], "view_set_3": [], "group_read": [], "view_read_1000": []}

    def timed(name: str, call: Callable[[], object], times: int) -> None:
        for _ in range(times):
            begin = time.perf_counter()
            call()
            calls[name].append((time.perf_counter() - begin) * 1e6)

    def bare() -> None:
        sock.send(HEADER.pack(HEADER.size + len(request), family, 1, 1, 0) + request)
        (kind,) = struct.unpack_from("=H", sock.recv(65536), 4)
        assert kind > NLMSG_DONE

    timed("syscall", bare, 300)
    timed("info", world.reader.info, 100)
    timed("view_set_3", lambda: world.view(world.me, Member(2, 5), Member(3, 5)), 100)
    world.member(10)
    timed("group_read", world.group, 100)
    world.view(world.me, *(Member(n, 5) for n in range(2, 1001)))
    timed("view_read_1000", lambda: world.reader.view(world.handle), 3)
    for name, values in calls.items():
        record_property(f"{name}_us", round(statistics.median(values)))
    assert world.group().finished_event == 10
    assert world.group().acked_phase is Phase.START
