# SPDX-License-Identifier: GPL-2.0-only
"""The control socket: a real unix socket between vcs/control.py and vcs/client.py, and rude peers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.wishes import Wishes
from vcs import control
from vcs.client import FENCING, INTERFACE, Client, NotRunning
from vcs.control import ControlServer
from vcs.errors import DaemonError, VcsError

WAIT_S = 20.0


class FakeBackend(Wishes):
    """A backend with fixed answers, and events that a test feeds."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Mapping[str, object]] = [{"event": f"past{i}", "t": i} for i in range(3)]
        self.live: asyncio.Queue[Mapping[str, object] | None] = asyncio.Queue()
        self.followers = 0
        self.closed = threading.Event()
        self.acked: list[int] = []
        self.holders: list[str] = []
        self.left = False

    def status(self) -> Any:
        return {"cluster": "alpha", "view": {"generation": 2**63, "members": [1, 2]}}

    def nodes(self) -> Any:
        return [{"nodeid": 1}]

    def groups(self) -> Any:
        return []

    def why(self) -> Any:
        raise RuntimeError("a bug of ours")

    def ring(self) -> Any:
        return {"ring": "12.1", "claims": [(1, 2)]}

    def describe(self) -> Any:
        return {"mode": "primary", "nodes": []}

    async def metrics(self) -> str:
        raise VcsError("the engine has not been started")

    async def leave(self) -> None:
        await asyncio.sleep(0)
        if self.holders:
            error = VcsError(f"held by {', '.join(self.holders)}", "umount first")
            error.exit_code = 3
            raise error
        self.left = True

    def fence_ack(self, nodeid: int) -> None:
        if nodeid == 9:
            raise VcsError("nobody waits for node 9", "see `vcs why`")
        self.acked.append(nodeid)

    def open_channel(self, group: str, explicit: bool) -> socket.socket:
        if group != "orders":
            raise VcsError(f"this node is not in group {group!r}", "join it")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.send(b"explicit" if explicit else b"plain")
        return theirs

    async def events(self, follow: bool) -> AsyncIterator[Mapping[str, object]]:
        self.followers += 1
        try:
            for record in self.history:
                yield record
            while follow:
                record_or_end = await self.live.get()
                if record_or_end is None:
                    return
                yield record_or_end
        finally:
            self.closed.set()


class Served:
    """A ControlServer on a loop of its own thread."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.loop = asyncio.new_event_loop()
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.backend = FakeBackend()
        self.server = ControlServer(self.path, self.backend)
        self.run(self.server.start())

    def run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(WAIT_S)

    def feed(self, record: Mapping[str, object] | None) -> None:
        self.loop.call_soon_threadsafe(self.backend.live.put_nowait, record)

    def stop(self) -> None:
        self.run(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(WAIT_S)
        self.loop.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "vcs.sock")
    yield server
    server.stop()
    assert not os.path.exists(server.path)


def raw(served: Served) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(WAIT_S)
    peer.connect(served.path)
    return peer


def test_calls_and_their_values(served: Served) -> None:
    with Client(served.path) as client:
        assert client.status()["view"] == {"generation": 2**63, "members": [1, 2]}
        assert client.nodes() == [{"nodeid": 1}]
        assert client.groups() == []
        client.fence_ack(2)
        client.leave()
    assert served.backend.acked == [2]
    assert served.backend.left


def test_the_socket_is_for_root_only(served: Served) -> None:
    assert stat.S_IMODE(os.stat(served.path).st_mode) == 0o600


def test_a_refusal_carries_message_and_remedy(served: Served) -> None:
    served.backend.holders = ["gfs2:data"]
    with Client(served.path) as client:
        with pytest.raises(DaemonError, match=r"^held by gfs2:data; umount first$") as refused:
            client.leave()
        assert refused.value.exit_code == 3
        with pytest.raises(DaemonError, match="nobody waits for node 9; see `vcs why`"):
            client.fence_ack(9)
        assert client.groups() == []  # the connection is still good


def test_a_bug_of_the_backend_is_an_error_not_a_hang(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with Client(served.path) as client:
        with pytest.raises(DaemonError, match="InternalServerError"):
            client.why()
        assert client.groups() == []
    assert "a bug of ours" in caplog.text


def test_introspection(served: Served) -> None:
    with Client(served.path) as client:
        info = client.call("org.varlink.service.GetInfo")
        assert info["product"] == "vcsd"
        assert info["interfaces"] == ["org.varlink.service", INTERFACE, FENCING]
        text = client.call("org.varlink.service.GetInterfaceDescription", {"interface": INTERFACE})["description"]
        for line in (
            "method Status() -> (status: object)",
            "method Events(follow: ?bool) -> (events: []object)",
            "method FenceAck(nodeid: int) -> ()",
            "method Leave() -> ()",
            "error Failed (message: string, remedy: string, exit_code: int)",
        ):
            assert line in text.splitlines()
        with pytest.raises(DaemonError, match=r"org\.varlink\.service\.InterfaceNotFound"):
            client.call("org.example.Nothing.Do")
        with pytest.raises(DaemonError, match=r"org\.varlink\.service\.MethodNotFound"):
            client.call("Reboot")
        with pytest.raises(DaemonError, match=r"org\.varlink\.service\.InvalidParameter \(parameter nodeid\)"):
            client.call("FenceAck", {"nodeid": "two"})
        with pytest.raises(DaemonError, match=r"org\.varlink\.service\.ExpectedMore"):
            client.call("Events")


def test_events_so_far(served: Served) -> None:
    served.backend.history = [{"event": "e", "t": i} for i in range(2 * control.BATCH + 1)]
    with Client(served.path) as client:
        assert [r["t"] for r in client.events()] == list(range(2 * control.BATCH + 1))
        assert client.groups() == []
    assert served.backend.closed.is_set()


def test_follow_gets_each_event_at_once(served: Served) -> None:
    with Client(served.path) as client:
        events = client.events(follow=True)
        assert [next(events)["event"] for _ in range(3)] == ["past0", "past1", "past2"]
        for i in range(3):
            served.feed({"event": f"live{i}"})
            assert next(events)["event"] == f"live{i}"  # before the next one is fed
        served.feed(None)
        assert list(events) == []


def test_a_follower_that_goes_away_frees_its_source(served: Served) -> None:
    client = Client(served.path)
    assert next(client.events(follow=True))["event"] == "past0"
    assert not served.backend.closed.is_set()
    client.close()
    assert served.backend.closed.wait(WAIT_S)  # without any further event
    assert served.errors == []


def test_two_calls_at_once_are_answered_in_order(served: Served) -> None:
    peer = raw(served)
    peer.sendall(b"".join(json.dumps({"method": f"{INTERFACE}.{m}"}).encode() + b"\0" for m in ("Leave", "Nodes", "Groups")))
    data = b""
    while data.count(0) < 3:
        data += peer.recv(65536)
    replies = [json.loads(m) for m in data.split(b"\0")[:-1]]
    assert replies == [{}, {"parameters": {"nodes": [{"nodeid": 1}]}}, {"parameters": {"groups": []}}]
    peer.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.0\r\n\r\n\0",
        b"[]\0",
        b"\xff\xfe\0",
        b'{"method"' + b"[" * 60000 + b"\0",
        b"[" * 60000 + b"\0",
        b"x" * (control.CALL_MAX + 1),
    ],
)
def test_junk_ends_the_connection_and_nothing_else(served: Served, junk: bytes) -> None:
    peer = raw(served)
    peer.sendall(junk)
    peer.shutdown(socket.SHUT_WR)
    data = b"more"
    while data:
        try:
            data = peer.recv(65536)
        except ConnectionResetError:
            data = b""
    peer.close()
    with Client(served.path) as client:
        assert client.groups() == []


def test_more_connections_than_allowed(served: Served) -> None:
    peers = [raw(served) for _ in range(control.CONNECTIONS_MAX)]
    for peer in peers:
        peer.sendall(json.dumps({"method": f"{INTERFACE}.Groups"}).encode() + b"\0")
        assert peer.recv(4096).endswith(b"\0")
    with pytest.raises(DaemonError), Client(served.path) as client:
        client.groups()
    for peer in peers:
        peer.close()
    # The server sees the closes in its own time: asking again is the event to wait for.
    for _ in range(1000):
        if _answers(served):
            break
    else:
        pytest.fail("no connection was given back")


def _answers(served: Served) -> bool:
    try:
        with Client(served.path) as client:
            return client.groups() == []
    except DaemonError:
        return False


def test_the_answer_of_a_leave_arrives_though_the_daemon_ends_with_it(served: Served) -> None:
    """vcsd closes its socket as soon as it has left: the one who asked must still be told."""
    ending: list[asyncio.Task[None]] = []

    async def leave() -> None:
        ending.append(asyncio.ensure_future(served.server.close()))
        await asyncio.sleep(0.05)  # the end begins before the answer is there

    served.backend.leave = leave  # type: ignore[method-assign]
    with Client(served.path) as client:
        client.leave()


def test_the_end_of_the_server_ends_a_follower_properly(served: Served) -> None:
    with Client(served.path) as client:
        events = client.events(follow=True)
        assert [next(events)["event"] for _ in range(3)] == ["past0", "past1", "past2"]
        served.run(served.server.close())
        assert list(events) == []  # a last reply, not a lost connection


def test_a_caller_that_never_reads_cannot_keep_the_server_from_ending(served: Served) -> None:
    served.backend.history = [{"event": "x" * 60000} for _ in range(100)]
    peer = raw(served)
    peer.sendall(json.dumps({"method": f"{INTERFACE}.Events", "more": True}).encode() + b"\0")
    assert peer.recv(1)
    served.run(served.server.close())
    peer.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="vcsd is not running"):
        Client(str(tmp_path / "none.sock"))


def test_a_stale_socket_is_replaced_and_a_served_one_is_not(served: Served, tmp_path: Path) -> None:
    second = ControlServer(served.path, served.backend)
    with pytest.raises(DaemonError, match="is served by another process"):
        served.run(second.start())
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    third = ControlServer(str(stale), served.backend)
    served.run(third.start())
    with Client(str(stale)) as client:
        assert client.groups() == []
    served.run(third.close())
    plain = tmp_path / "file"
    plain.write_text("mine")
    with pytest.raises(DaemonError, match="exists and is no socket"):
        served.run(ControlServer(str(plain), served.backend).start())
    assert plain.read_text() == "mine"


def test_a_reply_that_is_no_varlink(tmp_path: Path) -> None:
    path = str(tmp_path / "odd.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def answer() -> None:
        peer, _ = listener.accept()
        peer.recv(4096)
        peer.sendall(b"hello\0")
        peer.close()

    thread = threading.Thread(target=answer)
    thread.start()
    with Client(path) as client, pytest.raises(DaemonError, match="does not speak Varlink"):
        client.groups()
    thread.join(WAIT_S)
    listener.close()


def test_a_channel_comes_as_a_descriptor_and_none_stays_behind(served: Served) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Client(served.path) as client:
        for _ in range(3):
            with socket.socket(fileno=client.open_channel("orders", True)) as channel:
                assert channel.recv(100) == b"explicit" and channel.recv(100) == b""
                assert not os.get_inheritable(channel.fileno())
        with pytest.raises(DaemonError, match="not in group 'other'"):
            client.open_channel("other", False)
        assert client.status()["cluster"] == "alpha"
    served.run(asyncio.sleep(0.1))
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not served.errors
