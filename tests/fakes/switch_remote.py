# SPDX-License-Identifier: GPL-2.0-only
"""The userland switch for daemons in processes of their own: it lives in the test, they reach it over a unix socket.

One connection is one netlink socket: when it closes, because the daemon ended or was killed, the switch sees its socket die. A call
is one packet each way; the descriptor of ``hints_fd()`` travels over the socket. The daemon finds it by ``--switch
tests.fakes.switch_remote:connect`` and the environment variable VCS_TEST_SWITCH.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
from typing import Any

from tests.fakes.switch import FakeSwitch
from tests.fakes.switch_port import FakePort
from vcs.errors import SwitchError

VARIABLE = "VCS_TEST_SWITCH"
PACKET = 200_000


class SwitchServer:
    """Serves one FakeSwitch on the running loop."""

    def __init__(self, switch: FakeSwitch, path: str) -> None:
        self._switch = switch
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(path)
        self._listener.listen(16)
        self._tasks = {asyncio.create_task(self._accept())}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            self._tasks.add(asyncio.create_task(self._serve(connection)))

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        port = self._switch.provider()
        try:
            while packet := await loop.sock_recv(connection, PACKET):
                reply, fds = self._call(port, *pickle.loads(packet))
                socket.send_fds(connection, [pickle.dumps(reply)], fds)
        except OSError:
            pass
        finally:
            port.close()
            connection.close()

    @staticmethod
    def _call(port: FakePort, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[int]]:
        try:
            result = getattr(port, method)(*args, **kwargs)
        except SwitchError as error:
            return (False, (error.errno, error.message, error.attribute)), []
        return (True, result), [result] if method == "hints_fd" else []


class RemotePort:
    """The daemon's side: every method of the ports, by name."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket.connect(path)
        self._hints_fd = -1

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(method, args, kwargs)[0]

        return call

    def hints_fd(self) -> int:
        if self._hints_fd < 0:
            self._hints_fd = self._call("hints_fd", (), {})[1][0]
        return self._hints_fd

    def close(self) -> None:
        self._socket.close()

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[int]]:
        self._socket.send(pickle.dumps((method, args, kwargs)))
        packet, fds, _flags, _address = socket.recv_fds(self._socket, PACKET, 1)
        ok, result = pickle.loads(packet)
        if not ok:
            raise SwitchError(*result)
        return result, fds


def connect() -> RemotePort:
    return RemotePort(os.environ[VARIABLE])
