# SPDX-License-Identifier: GPL-2.0-only
"""Network namespaces for tests with real processes: N nodes, each with L links over bridges of their own. Needs root.

Link l (from 0) is a bridge in a namespace of its own; node n has ``10.99.<l>.<n>`` and ``fd99:<l>::<n>`` on an interface ``link<l>``.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PORT = 5405
Event = dict[str, object]
_numbers = itertools.count()


def ip(*arguments: str, netns: str = "") -> str:
    command = ["ip", *(["-n", netns] if netns else []), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class NetLab:
    """Namespaces and what connects them. Use as a context manager: everything goes at the end."""

    def __init__(self, nodes: int, links: int = 1, mtu: int = 1500) -> None:
        self.name = f"vcst{os.getpid()}x{next(_numbers)}"
        self.nodes = range(1, nodes + 1)
        self.links = range(links)
        self.switch = f"{self.name}sw"
        try:
            self._make(mtu)
        except BaseException:
            self.close()
            raise

    def _make(self, mtu: int) -> None:
        ip("netns", "add", self.switch)
        for link in self.links:
            ip("link", "add", f"br{link}", "mtu", str(mtu), "type", "bridge", "mcast_snooping", "0", netns=self.switch)
            ip("link", "set", f"br{link}", "up", netns=self.switch)
        for node in self.nodes:
            space = self.space(node)
            ip("netns", "add", space)
            ip("link", "set", "lo", "up", netns=space)
            for link in self.links:
                ip("link", "add", f"link{link}", "mtu", str(mtu), "netns", space, "type", "veth",
                   "peer", "name", self.port(node, link), "netns", self.switch)
                ip("link", "set", self.port(node, link), "mtu", str(mtu), "master", f"br{link}", "up", netns=self.switch)
                ip("address", "add", f"{self.four(node, link)}/24", "dev", f"link{link}", netns=space)
                ip("address", "add", f"{self.six(node, link)}/64", "dev", f"link{link}", "nodad", netns=space)
                ip("link", "set", f"link{link}", "up", netns=space)

    def space(self, node: int) -> str:
        return f"{self.name}n{node}"

    @staticmethod
    def port(node: int, link: int) -> str:
        """The bridge's end of a node's link."""
        return f"n{node}l{link}"

    @staticmethod
    def four(node: int, link: int = 0) -> str:
        return f"10.99.{link}.{node}"

    @staticmethod
    def six(node: int, link: int = 0) -> str:
        return f"fd99:{link}::{node}"

    # --- faults -------------------------------------------------------------------------------------------------------------

    def cut(self, node: int, link: int) -> None:
        """The node's frames on this link vanish, both ways, and its own end stays up: nobody is told."""
        ip("link", "set", self.port(node, link), "nomaster", netns=self.switch)

    def mend(self, node: int, link: int) -> None:
        ip("link", "set", self.port(node, link), "master", f"br{link}", netns=self.switch)

    def unplug(self, node: int, link: int) -> None:
        """The cable is pulled: the node's own interface loses its carrier."""
        ip("link", "set", self.port(node, link), "down", netns=self.switch)

    def plug(self, node: int, link: int) -> None:
        ip("link", "set", self.port(node, link), "up", netns=self.switch)

    def set_mtu(self, node: int, link: int, mtu: int) -> None:
        ip("link", "set", f"link{link}", "mtu", str(mtu), netns=self.space(node))

    def deafen(self, node: int, link: int) -> None:
        """Multicast no longer reaches the node, as behind a switch that snoops and has no querier."""
        done = subprocess.run(["bridge", "-n", self.switch, "link", "set", "dev", self.port(node, link), "mcast_flood", "off"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def swallow(self, node: int, link: int, longer_than: int) -> None:
        """A hop before the node drops longer packets and says nothing. Only single packets travel then, as on a real network."""
        for other in self.nodes:
            ip("link", "set", f"link{link}", "gso_max_segs", "1", netns=self.space(other))
        ip("link", "set", self.port(node, link), "mtu", str(longer_than), netns=self.switch)

    def sent(self, node: int, link: int) -> int:
        """Bytes that the node has sent on the link."""
        (told,) = json.loads(ip("-s", "-j", "link", "show", "dev", f"link{link}", netns=self.space(node)))
        return int(told["stats64"]["tx"]["bytes"])

    @contextlib.contextmanager
    def inside(self, node: int) -> Iterator[None]:
        """This thread is in the node's namespace: sockets made here stay there."""
        libc = ctypes.CDLL(None, use_errno=True)
        clone_newnet = 0x40000000
        with open("/proc/self/ns/net", "rb") as home, open(f"/run/netns/{self.space(node)}", "rb") as there:
            assert libc.setns(there.fileno(), clone_newnet) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(home.fileno(), clone_newnet) == 0, os.strerror(ctypes.get_errno())

    def close(self) -> None:
        for space in [self.switch, *map(self.space, self.nodes)]:
            with contextlib.suppress(RuntimeError):
                ip("netns", "delete", space)

    def __enter__(self) -> NetLab:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Child:
    """One engine process (totem_node.py); ``wait`` reads its events until one satisfies."""

    def __init__(self, nodeid: int, arguments: Sequence[str], space: str = "") -> None:
        self.nodeid = nodeid
        command = [sys.executable, "-m", "tests.process.totem_node", str(nodeid), *arguments]
        self.process = subprocess.Popen(
            (["ip", "netns", "exec", space] if space else []) + command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.events: list[Event] = []
        self._rest = b""

    def say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def wait(self, what: str, satisfied: Callable[[Event], object], seconds: float = 20, since: int | None = None) -> Event:
        """The first event from now on (or from number ``since``) for which ``satisfied(event)``; all are kept in ``events``."""
        end = time.monotonic() + seconds
        seen = len(self.events) if since is None else since
        while True:
            while seen < len(self.events):
                seen += 1
                if satisfied(self.events[seen - 1]):
                    return self.events[seen - 1]
            assert self.read(end - time.monotonic()), f"node {self.nodeid}: no {what} in {seconds} s; last: {self.events[-5:]}"

    def read(self, seconds: float) -> bool:
        """Take in what the process said. False: nothing came in so many seconds, or it has ended."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        ready = select.poll()  # select() takes no descriptor above 1023, which a long test run reaches
        ready.register(fd, select.POLLIN)
        if seconds <= 0 or not ready.poll(seconds * 1000):
            return False
        data = os.read(fd, 65536)
        if not data:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.events += [json.loads(line) for line in lines]
        return True

    def configured(self, members: Sequence[int], since: int | None = None) -> Event:
        return self.wait(f"ring of {members}", lambda e: e["kind"] == "conf" and e["what"] == "REGULAR"
                         and e["members"] == list(members), since=since)

    def rings(self) -> list[object]:
        """The members of every regular configuration so far."""
        return [e["members"] for e in self.events if e["kind"] == "conf" and e["what"] == "REGULAR"]

    def status(self) -> dict[str, object]:
        self.say("status")
        return self.wait("status", lambda e: e["kind"] == "status")

    def texts(self) -> list[object]:
        return [e["text"] for e in self.events if e["kind"] == "message"]

    def kill(self) -> int:
        """SIGKILL; when (CLOCK_MONOTONIC, ns)."""
        now = time.monotonic_ns()
        self.process.send_signal(signal.SIGKILL)
        return now

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def write_config(path: Path, addresses: Mapping[int, Sequence[str]], key_file: str, totem: str = "", port: int = PORT) -> Path:
    """A cluster.toml with these nodes; their key is in ``key_file`` (a name beside it)."""
    nodes = "".join(
        f'[[node]]\nid = {n}\nname = "n{n}"\naddresses = {json.dumps(list(a))}\n' for n, a in addresses.items())
    path.write_text(
        f'[cluster]\nname = "udp"\nkey_file = "{key_file}"\n{nodes}[totem]\nport = {port}\n{totem}\n[lease]\nlease_ms = 60000\n')
    return path
