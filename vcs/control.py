# SPDX-License-Identifier: GPL-2.0-only
"""The local control socket: one Varlink interface, served from vcsd's event loop with the library asyncvarlink.

The socket has mode 0600. Mode bits cannot tell a call that reads from one that changes, and a daemon that must not be starved or
crowded out has no use for strangers on its event loop: who is not root reads the same state from sysfs (vcs/sysfs.py), and the event log.

The library is generous with what it reads, so :class:`_Protocol` bounds it: so many connections, so long a call, and a peer that speaks
something else is cut off. While a call runs the library does not read, and so would not see that a follower of events has gone: a second
descriptor of the connection watches for that.
"""
# No ``from __future__ import annotations``: the library makes the interface description from the annotations themselves.

import asyncio
import contextlib
import contextvars
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from asyncvarlink import (
    AnnotatedResult,
    FileDescriptor,
    FileDescriptorArray,
    VarlinkInterface,
    VarlinkInterfaceRegistry,
    VarlinkInterfaceServerProtocol,
    VarlinkMethodCall,
    VarlinkTransport,
    varlinkmethod,
)
from asyncvarlink.serviceinterface import VarlinkServiceInterface

from vcs.client import INTERFACE, SOCKET_PATH
from vcs.control_errors import Failed, failed, told
from vcs.control_fencing import FencingBackend, FencingInterface
from vcs.errors import DaemonError, VcsError
from vcs.report import GroupReport, NodeReport, RingReport, StatusReport, WhyReport

CONNECTIONS_MAX = 64
CALL_MAX = 64 << 10
"Longest call in bytes."
ACCEPT_PAUSE_S = 1.0
CLOSE_GRACE_S = 0.5
FINISH_S = 1.0
"How long an answer may take to be read when the server ends."
BATCH = 200
"Events in one reply."

log = logging.getLogger(__name__)
Record = Mapping[str, object]


class Backend(FencingBackend, Protocol):
    """What vcsd offers to the control socket. All are called on the event loop; a VcsError becomes the caller's error."""

    def status(self) -> StatusReport: ...
    def nodes(self) -> Sequence[NodeReport]: ...
    def groups(self) -> Sequence[GroupReport]: ...
    def why(self) -> Sequence[WhyReport]: ...
    def ring(self) -> RingReport: ...
    def describe(self) -> Mapping[str, object]: ...

    async def metrics(self) -> str:
        """The state as Prometheus' text."""

    async def leave(self) -> None:
        """Leave the cluster cleanly; returns once that is done. Raises VcsError while groups hold this node, naming them."""

    async def expect_votes(self, votes: int) -> None:
        """The cluster is to expect so many votes. This and the next two return when it is ordered, and raise VcsError if it cannot be."""

    async def maintenance(self, for_ms: int, reason: str) -> None:
        """Freeze fencing and resets for so long (ms); 0 ends it."""

    async def shut_down(self) -> None:
        """Every node leaves in order."""

    def fence_ack(self, nodeid: int) -> None:
        """A person states that the node is off. Raises VcsError if it is unknown or nobody waits for it."""

    def open_channel(self, group: str, explicit: bool) -> socket.socket:
        """A batch channel of a group; the caller's end of it. Raises VcsError if this node is not in the group."""

    def events(self, follow: bool) -> AsyncIterator[Record]:
        """What happened so far, and with ``follow`` what happens from then on. Closed when the caller goes away."""


_connection: contextvars.ContextVar["_Protocol"] = contextvars.ContextVar("connection")
"The connection whose call is being served."


class _Cluster(VarlinkInterface, name=INTERFACE):
    """State of this node's cluster, and what a person may ask of it. The shapes are those of `vcs --json`, version 1: they grow by keys."""

    errors = (Failed,)

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @varlinkmethod(return_parameter="status", allow_foreign=True)
    def Status(self) -> Any:
        """The cluster as this node sees it: provider, view, quorum, lease, fencing."""
        with told():
            return dict(self._backend.status())

    @varlinkmethod(return_parameter="nodes", allow_foreign=True)
    def Nodes(self) -> list[Any]:
        """Every configured node with its state."""
        with told():
            return list(self._backend.nodes())

    @varlinkmethod(return_parameter="groups", allow_foreign=True)
    def Groups(self) -> list[Any]:
        """Every group that this node is in, as the switch holds it."""
        with told():
            return list(self._backend.groups())

    @varlinkmethod(return_parameter="waits", allow_foreign=True)
    def Why(self) -> list[Any]:
        """What is waited for, on whom, and the remedy. Empty: nothing waits."""
        with told():
            return list(self._backend.why())

    @varlinkmethod(return_parameter="ring", allow_foreign=True)
    def Ring(self) -> Any:
        """What the engine knows of its ring: links, tokens, who has no round trip with whom, and why the configuration changed."""
        with told():
            return dict(self._backend.ring())

    @varlinkmethod(return_parameter="picture", allow_foreign=True)
    def Describe(self) -> Any:
        """The coordinator's whole picture, for dlm_glue's answers to dlm_tool. It changes with the version; read Status instead."""
        with told():
            return dict(self._backend.describe())

    @varlinkmethod(return_parameter="text")
    async def Metrics(self) -> str:
        """The state of this node as metrics, in the text format of Prometheus."""
        with told():
            return await self._backend.metrics()

    @varlinkmethod(allow_foreign=True, return_parameter="events", delay_generator=False)
    async def Events(self, *, follow: bool = False) -> AsyncIterator[list[Any]]:
        """What happened, in batches. Must be called with `more`; with `follow` it goes on until the caller closes the connection."""
        source = self._backend.events(follow)
        try:
            async for batch in _batches(source, _connection.get().gone, follow):
                yield AnnotatedResult({"events": batch}, continues=True)  # type: ignore[misc]
        except VcsError as error:
            raise failed(error) from error
        finally:
            await _close(source)
        yield AnnotatedResult({"events": []})  # type: ignore[misc]

    @varlinkmethod
    async def Leave(self) -> None:
        """Leave the cluster cleanly. Answers when it is done; refused while groups hold this node."""
        with told():
            await self._backend.leave()

    @varlinkmethod
    async def ExpectVotes(self, *, votes: int) -> None:
        """Expect so many votes from now on, in the whole cluster. Votes of nodes that are known to be dead can go for it."""
        with told():
            await self._backend.expect_votes(votes)

    @varlinkmethod
    async def Maintenance(self, *, for_ms: int, reason: str = "") -> None:
        """Freeze fencing and resets in the whole cluster for so long, at most 24 hours; 0 ends it."""
        with told():
            await self._backend.maintenance(for_ms, reason)

    @varlinkmethod
    async def ShutDown(self) -> None:
        """Every node leaves, one after the other. Refused while a node is in a group or must be fenced: they are named."""
        with told():
            await self._backend.shut_down()

    @varlinkmethod
    def FenceAck(self, *, nodeid: int) -> None:
        """State that a failed node is off, on your own responsibility: its locks are given to others."""
        with told():
            self._backend.fence_ack(nodeid)

    @varlinkmethod(return_parameter="channel")
    def OpenChannel(self, *, group: str, explicit: bool = False) -> FileDescriptor:
        """A batch channel of a group that this node is in: a packet socket (vcs/batch.py), whose descriptor comes with the reply."""
        with told():
            return FileDescriptor(self._backend.open_channel(group, explicit), should_close=True)


async def _batches(source: AsyncIterator[Record], gone: asyncio.Future[None], follow: bool) -> AsyncIterator[list[Record]]:
    """The records of ``source``; a batch is as long as records are there at once (following) or :data:`BATCH`."""
    batch: list[Record] = []
    while not gone.done():
        step = asyncio.ensure_future(anext(source))
        if follow and batch:
            await asyncio.sleep(0)  # one turn of the loop: whatever is ready joins this batch
            if not step.done():
                yield batch
                batch = []
        await asyncio.wait((step, gone), return_when=asyncio.FIRST_COMPLETED)
        if not step.done():
            step.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await step
            return
        try:
            batch.append(step.result())
        except StopAsyncIteration:
            break
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _close(source: AsyncIterator[Record]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()


class _Protocol(VarlinkInterfaceServerProtocol):
    """One connection, with limits."""

    def __init__(self, registry: VarlinkInterfaceRegistry, watch: socket.socket) -> None:
        super().__init__(registry)
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        "Done when the peer has closed the connection, or the server ends."
        self._watch = watch

    def _peek(self) -> None:
        """While a call is served: the peer went away, or it sends the next call, which stays where it is until this one is done."""
        try:
            data = self._watch.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            asyncio.get_running_loop().remove_reader(self._watch)
        else:
            self._end()

    def _end(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        if self._watch.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._watch)
            self._watch.close()

    async def finish(self, limit_s: float) -> None:
        """End a stream of events, and wait until what is being answered has been answered and read."""
        if not self.gone.done():
            self.gone.set_result(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._inflight:
                    await asyncio.wait(self._inflight)

    def message_received(self, data: bytes, fds: FileDescriptorArray | None) -> None:
        if len(self._recv_buffer) + len(data) > CALL_MAX:
            log.warning("control socket: a call longer than %d bytes, connection closed", CALL_MAX)
            self.close()
            return
        try:
            super().message_received(data, fds)
        except (ValueError, RecursionError):  # what the library's JSON reader lets through
            self.close()

    def error_received(self, err: Exception, data: bytes, fds: FileDescriptorArray | None) -> None:
        log.warning("control socket: no Varlink call (%s), connection closed", err)
        self.close()

    def call_received(self, call: VarlinkMethodCall, fds: FileDescriptorArray | None) -> asyncio.Future[None] | None:
        _connection.set(self)
        if not self.gone.done():
            asyncio.get_running_loop().add_reader(self._watch, self._peek)
        served: asyncio.Future[None] | None = super().call_received(call, fds)
        return served

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)


class ControlServer:
    """Serves ``backend`` on a socket at ``path`` (mode 0600), on the running loop, between :meth:`start` and :meth:`close`."""

    def __init__(self, path: str, backend: Backend, version: str = "0.1.0") -> None:
        self.path = path or SOCKET_PATH
        self._registry = VarlinkInterfaceRegistry()
        self._registry.register_interface(
            VarlinkServiceInterface("Virtual Cluster Switch", "vcsd", version, "", self._registry)
        )
        self._registry.register_interface(_Cluster(backend))
        self._registry.register_interface(FencingInterface(backend))
        self._listener: socket.socket | None = None
        self._connections: dict[VarlinkTransport, _Protocol] = {}

    async def start(self) -> None:
        """Bind and listen. A socket that nobody serves any more is replaced; DaemonError if somebody does."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._remove_stale()
            # The mode is set before anybody can connect: a socket that does not listen yet refuses.
            listener.bind(self.path)
            os.chmod(self.path, 0o600)
            listener.listen(CONNECTIONS_MAX)
        except OSError as error:
            listener.close()
            raise DaemonError(f"control socket {self.path}: {error.strerror or error}", "check the folder and its rights") from error
        except DaemonError:
            listener.close()
            raise
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    async def close(self) -> None:
        """Stop listening, remove the socket, end all connections: those in a call get their answer first, within a second."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        connections = dict(self._connections)
        await asyncio.gather(*(protocol.finish(FINISH_S) for protocol in connections.values()))
        for transport in connections:
            transport.abort()
        for transport in connections:
            await transport.closed_future

    def _remove_stale(self) -> None:
        try:
            mode = os.stat(self.path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise DaemonError(f"{self.path} exists and is no socket", "remove it")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.path)
            except OSError:
                os.unlink(self.path)
                return
        raise DaemonError(f"{self.path} is served by another process", "is vcsd running already?")

    def _resume_accepting(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        try:
            connection, _address = self._listener.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                # Out of descriptors or memory: the connection stays queued, so look again later instead of spinning.
                log.warning("control socket: accept: %s", error)
                loop.remove_reader(self._listener)
                loop.call_later(ACCEPT_PAUSE_S, self._resume_accepting)
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            connection.close()
            return
        connection.setblocking(False)
        watch = connection.dup()
        protocol = _Protocol(self._registry, watch)
        transport = VarlinkTransport(loop, connection, connection, protocol)
        self._connections[transport] = protocol
        transport.closed_future.add_done_callback(lambda _done: self._connections.pop(transport))
