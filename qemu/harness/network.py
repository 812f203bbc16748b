# SPDX-License-Identifier: GPL-2.0-only
"""The cluster's Ethernet: a learning switch in a process of its own, with faults per port and per ordered pair.

QEMU's `-netdev stream` speaks frames with a four-byte length (big endian) over a socket pair. Nothing of the
host's network is touched, and no privilege is needed.
"""

from __future__ import annotations

import heapq
import json
import random
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import process
from harness.errors import LabError

QUEUE_LIMIT = 2 << 20  # bytes waiting for one port; a real switch drops as well
ALL = 0


@dataclass(slots=True)
class Fault:
    """What happens to frames from one node to another."""

    blocked: bool = False
    loss: float = 0.0  #: probability
    delay_s: float = 0.0
    jitter_s: float = 0.0


@dataclass(slots=True)
class Port:
    node: int
    sock: socket.socket
    inward: bytearray = field(default_factory=bytearray)
    outward: deque[bytes] = field(default_factory=deque)
    queued: int = 0
    sent: int = 0  #: bytes of outward[0] already written


class Switch:
    """The switch process's whole state; `run` never returns."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._ports: dict[int, Port] = {}
        self._table: dict[bytes, int] = {}
        self._faults: dict[tuple[int, int], Fault] = {}
        self._later: list[tuple[float, int, int, bytes]] = []
        self._sequence = 0
        self._random = random.Random(1)
        self.dropped = 0

    def run(self) -> None:
        while True:
            timeout = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
            for key, mask in self._selector.select(timeout):
                if key.fileobj is self._control:
                    self._command()
                    continue
                port: Port = key.data
                if mask & selectors.EVENT_READ:
                    self._read(port)
                if mask & selectors.EVENT_WRITE and self._ports.get(port.node) is port:
                    self._flush(port)
            while self._later and self._later[0][0] <= time.monotonic():
                _, _, node, frame = heapq.heappop(self._later)
                if node in self._ports:
                    self._send(self._ports[node], frame)

    def _read(self, port: Port) -> None:
        try:
            data = port.sock.recv(1 << 17)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._unplug(port)
            return
        buffer = port.inward
        buffer += data
        at = 0
        while len(buffer) - at >= 4:
            (size,) = struct.unpack_from(">I", buffer, at)
            if len(buffer) - at < 4 + size:
                break
            self._forward(port.node, bytes(buffer[at : at + 4 + size]))
            at += 4 + size
        del buffer[:at]

    def _forward(self, source: int, frame: bytes) -> None:
        destination, origin = frame[4:10], frame[10:16]
        self._table[origin] = source
        target = self._table.get(destination) if not destination[0] & 1 else None
        for node in [target] if target in self._ports else [n for n in self._ports if n != source]:
            assert node is not None
            fault = self._faults.get((source, node))
            if fault is None:
                self._send(self._ports[node], frame)
            elif fault.blocked or (fault.loss and self._random.random() < fault.loss):
                self.dropped += 1
            elif fault.delay_s or fault.jitter_s:
                due = time.monotonic() + fault.delay_s + self._random.random() * fault.jitter_s
                self._sequence += 1
                heapq.heappush(self._later, (due, self._sequence, node, frame))
            else:
                self._send(self._ports[node], frame)

    def _send(self, port: Port, frame: bytes) -> None:
        if port.queued > QUEUE_LIMIT:
            self.dropped += 1
            return
        port.outward.append(frame)
        port.queued += len(frame)
        if len(port.outward) == 1:
            self._flush(port)

    def _flush(self, port: Port) -> None:
        try:
            while port.outward:
                frame = port.outward[0]
                port.sent += port.sock.send(memoryview(frame)[port.sent :])
                if port.sent == len(frame):
                    port.outward.popleft()
                    port.queued -= len(frame)
                    port.sent = 0
        except BlockingIOError:
            pass
        except OSError:
            self._unplug(port)
            return
        want = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.outward else 0)
        self._selector.modify(port.sock, want, port)

    def _unplug(self, port: Port) -> None:
        if self._ports.get(port.node) is port:
            del self._ports[port.node]
            self._selector.unregister(port.sock)
            port.sock.close()

    def _command(self) -> None:
        message, fds, _, _ = socket.recv_fds(self._control, 65536, 4)
        if not message:
            sys.exit(0)
        request = json.loads(message)
        answer: dict[str, Any] = {}
        if request["do"] == "plug":
            if old := self._ports.get(request["node"]):
                self._unplug(old)
            sock = socket.socket(fileno=fds[0])
            sock.setblocking(False)
            port = Port(request["node"], sock)
            self._ports[port.node] = port
            self._selector.register(sock, selectors.EVENT_READ, port)
        elif request["do"] == "faults":
            self._faults = {(source, to): Fault(*rest) for source, to, *rest in request["faults"]}
        elif request["do"] == "status":
            answer = {"ports": sorted(self._ports), "dropped": self.dropped}
        self._control.send(json.dumps(answer).encode())


class Network:
    """The tests' handle on the switch. A fault holds until heal(); `record` notes each in the timeline."""

    def __init__(self, nodes: list[int], folder: Path, record: Callable[..., None]) -> None:
        self._nodes = nodes
        self._record = record
        self._faults: dict[tuple[int, int], Fault] = {}
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-m", "harness.network", str(theirs.fileno())]
        import_from = str(Path(__file__).resolve().parents[1])
        self._process: subprocess.Popen[bytes] = process.start(
            ["env", f"PYTHONPATH={import_from}", *argv], [theirs], folder / "network.log"
        )

    def _ask(self, fds: tuple[int, ...] = (), **request: Any) -> dict[str, Any]:
        with self._lock:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], list(fds))
                answer = self._control.recv(65536)
            except OSError as error:
                raise LabError(f"the network switch died: {error}") from error
            if not answer:
                raise LabError("the network switch died, see network.log")
            return dict(json.loads(answer))

    def plug(self, node: int, sock: socket.socket) -> None:
        """Connect a machine's network card (again)."""
        self._ask((sock.fileno(),), do="plug", node=node)
        sock.close()

    def _pairs(self, a: int, b: int, oneway: bool) -> list[tuple[int, int]]:
        pairs = [(a, n) for n in self._nodes if n != a] if b == ALL else [(a, b)]
        return pairs if oneway else pairs + [(y, x) for x, y in pairs]

    def _apply(self, what: str, pairs: list[tuple[int, int]], **change: Any) -> int:
        for pair in pairs:
            fault = self._faults.setdefault(pair, Fault())
            for name, value in change.items():
                setattr(fault, name, value)
        self._ask(do="faults", faults=[
            [source, to, f.blocked, f.loss, f.delay_s, f.jitter_s] for (source, to), f in self._faults.items()
        ])
        self._record(f"network: {what}", 0)
        return time.monotonic_ns()

    def isolate(self, node: int) -> int:
        """Nothing to or from `node`. Like every fault here: the host's ns when it was in force."""
        return self._apply(f"isolate {node}", self._pairs(node, ALL, oneway=False), blocked=True)

    def block(self, a: int, b: int, *, oneway: bool = False) -> int:
        """Nothing from `a` to `b`, nor back unless `oneway`."""
        return self._apply(f"block {a} to {b}{' one way' if oneway else ''}", self._pairs(a, b, oneway), blocked=True)

    def partition(self, *sides: set[int]) -> int:
        """Only nodes of one side hear each other."""
        side = {node: number for number, nodes in enumerate(sides) for node in nodes}
        pairs = [(a, b) for a in self._nodes for b in self._nodes if a != b and side.get(a) != side.get(b)]
        return self._apply(f"partition {' | '.join(str(sorted(s)) for s in sides)}", pairs, blocked=True)

    def loss(self, a: int, b: int = ALL, *, probability: float, oneway: bool = False) -> int:
        """Frames between `a` and `b` (0: everybody) get lost with `probability`."""
        return self._apply(f"loss {probability} {a} to {b}", self._pairs(a, b, oneway), loss=probability)

    def delay(self, a: int, b: int = ALL, *, seconds: float, jitter: float = 0.0, oneway: bool = False) -> int:
        """Frames take `seconds`, plus up to `jitter` seconds more (which reorders them)."""
        return self._apply(
            f"delay {seconds} s {a} to {b}", self._pairs(a, b, oneway), delay_s=seconds, jitter_s=jitter
        )

    def heal(self) -> int:
        """No fault any more."""
        self._faults.clear()
        return self._apply("heal", [])

    def status(self) -> dict[str, Any]:
        """`ports`: nodes plugged in; `dropped`: frames."""
        return self._ask(do="status")

    def close(self) -> None:
        """End the switch's process."""
        self._control.close()
        self._process.wait(10)


if __name__ == "__main__":
    Switch(socket.socket(fileno=int(sys.argv[1]))).run()
