# SPDX-License-Identifier: GPL-2.0-only
"""dlm_controld's two abstract sockets, so that Debian's own dlm_tool works unmodified. What is answered is in controld_answers.py.

An abstract socket has no mode bits: whoever shares the network namespace can connect. Questions are answered to anybody, as dlm_controld
does. Commands are taken from root alone: dlm_controld takes a fence_ack from anybody, and with it any user could hand the locks of a
living node to others. A request that cannot be read closes its connection and is counted, nothing else happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from dlm_glue import controld_answers as answers
from dlm_glue import controld_wire as wire
from dlm_glue.ask import ask
from dlm_glue.controld_answers import Options, Picture, Sight
from dlm_glue.controld_history import History, Now
from dlm_glue.controld_log import LogRing
from dlm_glue.controld_wire import Command, Request
from dlm_glue.state import State
from vcs.errors import DaemonError, RemoteError, VcsError

CONNECTIONS_MAX = 64
"Of both sockets together; a further one is closed at once."
REQUEST_S = 5.0
"How long a client may take to send a request it has begun, and to read an answer."
EOPNOTSUPP = 95

logger = logging.getLogger("dlm_glue")


class Subject(Protocol):
    """What dlm_glue offers to the server."""

    @property
    def state(self) -> State: ...

    def plock_lines(self, lockspace: str) -> list[str]:
        """The POSIX locks of a lockspace, a line each without line end."""

    def plock_log(self) -> str:
        """Lines about POSIX locks."""

    def need_plocks(self) -> frozenset[str]:
        """Lockspaces whose POSIX locks have not arrived yet."""

    def apply_option(self, name: str, value: int) -> None:
        """A changed option takes effect. Raises OSError."""

    def configured(self) -> dict[str, int | str]:
        """Options as cluster.toml has them now, where they are not the defaults. Raises VcsError."""


def now() -> Now:
    return Now(int(time.monotonic()), int(time.time()))


class ControldServer:
    """Between :meth:`start` and :meth:`close`, on the running loop."""

    def __init__(self, subject: Subject, log: LogRing, control_path: str) -> None:
        self._subject = subject
        self._log = log
        self._control_path = control_path
        self.history = History()
        self.options = Options()
        self.counters = {"queries": 0, "commands": 0, "malformed": 0, "refused": 0, "crowded": 0}
        self._servers: list[asyncio.Server] = []
        self._open = 0

    async def start(self) -> None:
        """Raises VcsError when somebody else has the sockets."""
        with contextlib.suppress(VcsError):
            self.options.configured = self._subject.configured()
        for name, serve in ((wire.SOCKET, self._commands), (wire.QUERY_SOCKET, self._query)):
            try:
                self._servers.append(await asyncio.start_unix_server(self._limited(serve), name, limit=wire.EXTRA_MAX * 2))
            except OSError as error:
                await self.close()
                raise VcsError(
                    f"the socket @{name[1:]} cannot be had: {error.strerror}", "stop dlm_controld (systemctl disable --now dlm) first"
                ) from None

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    def watch(self, state: State) -> None:
        """Called after every step of the plan."""
        self.history.watch(state, now())

    # --- connections ------------------------------------------------------------------------------------------------------------------

    def _limited(
        self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._open >= CONNECTIONS_MAX:
                self.counters["crowded"] += 1
                writer.close()
                return
            self._open += 1
            try:
                await serve(reader, writer)
            except RemoteError as error:
                self.counters["malformed"] += 1
                logger.debug("dlm_tool's socket: %s", error)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                pass  # the client went away
            finally:
                self._open -= 1
                writer.close()

        return run

    @staticmethod
    async def _request(reader: asyncio.StreamReader) -> tuple[Request, bytes] | None:
        """The next request; None at the end of the connection. Raises RemoteError."""
        try:
            head = await reader.readexactly(wire.HEADER.size)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise RemoteError(f"{len(error.partial)} bytes of a header") from None
            return None
        request = wire.parse_request(head)
        async with asyncio.timeout(REQUEST_S):
            return request, await reader.readexactly(request.extra_len)

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        async with asyncio.timeout(REQUEST_S):
            await writer.drain()

    async def _query(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(REQUEST_S):
            got = await self._request(reader)
        if got is None:
            return
        self.counters["queries"] += 1
        data = await self._answer(got[0])
        if data is None:
            raise RemoteError(f"query {got[0].command}")
        await self._send(writer, data)
        # The client reads until the connection ends, so what it has not read yet must not be cut off.
        writer.write_eof()

    async def _commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        root = _peer_uid(writer) == 0
        while (got := await self._request(reader)) is not None:
            if not root:
                self.counters["refused"] += 1
                self._log.add(f"command {got[0].command} of uid {_peer_uid(writer)} refused")
                return
            self.counters["commands"] += 1
            data = await self._command(*got)
            if data:
                await self._send(writer, data)
            if got[0].command == Command.RUN_START:
                return

    # --- questions --------------------------------------------------------------------------------------------------------------------

    async def sight(self) -> Sight:
        """Everything that answers are made from, now."""
        picture: Picture | None = None
        try:
            reply = await ask(self._control_path, "Describe")
            found = reply.get("picture")
            picture = found if isinstance(found, dict) else None
        except DaemonError as error:
            logger.debug("%s: answering from the switch alone", error)
        state, moment = self._subject.state, now()
        self.history.watch(state, moment)
        sight = Sight(state, self.history, moment, picture, self._subject.need_plocks())
        if picture is not None:
            self.history.owed(answers.owed_to(sight), moment)
        return sight

    async def _answer(self, r: Request) -> bytes | None:
        """The whole answer; None for a question that there is none to."""
        match r.command:
            case Command.DUMP_DEBUG:
                return wire.dump(r.command, self._log.text())
            case Command.DUMP_CONFIG:
                return wire.dump(r.command, self.options.dump())
            case Command.DUMP_LOG_PLOCK:
                return wire.dump(r.command, self._subject.plock_log())
            case Command.DUMP_RUN:
                return wire.dump(r.command, "")
            case Command.DUMP_PLOCKS:
                if r.name not in self._subject.state.spaces:
                    return wire.dump(r.command, "", result=-answers.ENOENT, name=r.name)
                return wire.dump(r.command, "".join(f"{line}\n" for line in self._subject.plock_lines(r.name)), name=r.name)
            case Command.LOCKSPACES | Command.LOCKSPACE_INFO | Command.LOCKSPACE_NODES | Command.NODE_INFO | Command.DUMP_STATUS:
                return self._pictured(r, await self.sight())
        return None

    @staticmethod
    def _pictured(r: Request, sight: Sight) -> bytes:
        match r.command:
            case Command.LOCKSPACES:
                found = [wire.pack_lockspace(x) for x in answers.lockspaces(sight)]
                # 4.2.0 says nothing of how many it has room for and reads as many as the header tells; 4.1 says it.
                return wire.pack_list(r.command, "", found, r.data or len(found))
            case Command.LOCKSPACE_INFO:
                ls = answers.lockspace(sight, r.name)
                body = wire.pack_lockspace(ls) if ls else bytes(wire.LOCKSPACE.size)
                return wire.reply(r.command, body, result=0 if ls else -answers.ENOENT, name=r.name)
            case Command.LOCKSPACE_NODES:
                nodes = answers.nodes(sight, r.name, r.option)
                packed = [wire.pack_node(n) for n in nodes or ()]
                return wire.pack_list(r.command, r.name, packed, r.data, error=answers.ENOENT if nodes is None else 0)
            case Command.NODE_INFO:
                node = answers.node(sight, r.name, r.data)
                body = wire.pack_node(node) if node else bytes(wire.NODE.size)
                return wire.reply(r.command, body, result=0 if node else -answers.ENOENT, name=r.name)
        return answers.status(sight)

    # --- commands ---------------------------------------------------------------------------------------------------------------------

    async def _command(self, r: Request, extra: bytes) -> bytes:
        """The reply, empty when there is none. Raises RemoteError."""
        match r.command:
            case Command.FENCE_ACK:
                await self._fence_ack(r.name)
            case Command.SET_CONFIG:
                self._set_config(extra.split(b"\0", 1)[0].decode("utf-8", "replace"))
            case Command.RELOAD_CONFIG:
                self._reload_config()
            case Command.FS_REGISTER:
                return wire.reply(r.command, result=-EOPNOTSUPP, name=r.name)
            case Command.FS_UNREGISTER:
                pass
            case Command.FS_NOTIFIED:
                result = answers.fs_notified(await self.sight(), r.name, r.data)
                return wire.reply(r.command, result=result, option=r.data & 0xFFFFFFFF, name=r.name)
            case Command.RUN_START:
                # enable_helper=0, said in dump_config: nothing runs commands of one node on another.
                return wire.reply(r.command, result=-1)
            case Command.RUN_CHECK:
                return wire.reply(r.command, wire.RUN_CHECK.pack(0), result=-1)
            case _:
                raise RemoteError(f"command {r.command}")
        return b""

    async def _fence_ack(self, name: str) -> None:
        if not name.isascii() or not name.isdigit():
            self._log.add(f"fence_ack: {name!r} is no nodeid")
            return
        try:
            await ask(self._control_path, "FenceAck", nodeid=int(name))
        except DaemonError as error:
            logger.warning("dlm_tool fence_ack %s: %s", name, error)
            self._log.add(f"fence_ack {name} refused: {error}")
        else:
            logger.info("dlm_tool fence_ack %s", name)
            self._log.add(f"fence_ack {name}")

    def _set_config(self, text: str) -> None:
        for refusal in self.options.set(text):
            self._log.add(f"set_config: {refusal}")
        self._apply()

    def _reload_config(self) -> None:
        try:
            self.options.configured = self._subject.configured()
        except VcsError as error:
            self._log.add(f"reload_config: {error}")
            return
        self._apply()

    def _apply(self) -> None:
        for name in answers.SETTABLE:
            value = self.options.value(name)
            try:
                self._subject.apply_option(name, int(value))
            except OSError as error:
                self._log.add(f"set_config: {name}: {error.strerror}")
            else:
                self._log.add(f"config {name} = {value}")


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """Who connected, as the kernel noted it then; one of another user namespace is not root here."""
    sock: socket.socket = writer.get_extra_info("socket")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


