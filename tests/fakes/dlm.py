# SPDX-License-Identifier: GPL-2.0-only
"""A model of what the kernel's DLM makes of writes to configfs and sysfs, as far as dlm_glue can do right or wrong there.

It implements ``dlm_glue.lockspace.Tree``. The rules are those of fs/dlm/config.c, member.c and lockspace.c: a fresh nodes/N is "new", new
or absent members are removed, and a removed one counts as failed unless comms/N still has the sequence number that nodes/N took.
What would hang, leak or lose something in the kernel is put into ``violations``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from dlm_glue.lockspace import SOCKADDR_SIZE, Paths

CONFIG, DLM = "/cfg/dlm", "/dlm"
PATHS = Paths(CONFIG, DLM)


@dataclass
class Comm:
    seq: int
    nodeid: int = -1
    local: bool = False
    addresses: list[bytes] = field(default_factory=list)


@dataclass
class Node:
    nodeid: int = -1
    weight: int = 1
    new: bool = True
    comm_seq: int = 0


@dataclass
class Lockspace:
    waiting: str = ""
    "online, offline: a thread sleeps until event_done."
    id: int = 0
    nodir: int = 0
    stopped: bool = True
    status: int = 0
    members: dict[int, int] = field(default_factory=dict)
    "nodeid -> comm_seq, of the last start."


class FakeDlm:
    def __init__(self) -> None:
        self.cluster: dict[str, str] | None = None
        self.comms: dict[str, Comm] = {}
        self.spaces: dict[str, dict[str, Node]] = {}
        self.lockspaces: dict[str, Lockspace] = {}
        self.log: list[tuple[object, ...]] = []
        self.violations: list[str] = []
        self.busy_options = False
        self.fail: Callable[[str, str], int] = lambda op, path: 0
        "(mkdir|rmdir|write, path) -> errno to fail with."
        self.on_start: Callable[[str, set[int]], None] = lambda name, removed: None
        self._seq = 0

    # --- the kernel's other side ------------------------------------------------------------------------------------------------------

    def new_lockspace(self, name: str) -> None:
        """dlm_new_lockspace(): now sleeps until event_done."""
        assert name not in self.lockspaces
        if not any(c.local for c in self.comms.values()):
            self.violations.append(f"join of {name} without a local comm")
        self.lockspaces[name] = Lockspace(waiting="online")

    def release_lockspace(self, name: str) -> None:
        assert not self.lockspaces[name].waiting
        self.lockspaces[name].waiting = "offline"

    def recover(self, name: str, status: int) -> None:
        """Recovery gets on, as recover_status shows it."""
        if name in self.lockspaces and not self.lockspaces[name].stopped:
            self.lockspaces[name].status = status

    # --- Tree -------------------------------------------------------------------------------------------------------------------------

    def mkdir(self, path: str) -> None:
        self._fail("mkdir", path)
        match self._split(path):
            case ["cfg", "cluster"] if self.cluster is None:
                self.cluster = {"cluster_name": "", "recover_callbacks": "0", "tcp_port": "21064", "protocol": "0", "log_debug": "0"}
            case ["cfg", "cluster", "comms", name] if name not in self.comms:
                self._seq += 1
                self.comms[name] = Comm(self._seq)
            case ["cfg", "cluster", "spaces", name] if name not in self.spaces:
                self.spaces[name] = {}
            case ["cfg", "cluster", "spaces", space, "nodes", name] if name not in self.spaces.get(space, {name: None}):
                self.spaces[space][name] = Node()
            case _:
                raise OSError(errno.EEXIST if self.exists(path) else errno.ENOENT, os.strerror(errno.EEXIST), path)

    def rmdir(self, path: str) -> None:
        self._fail("rmdir", path)
        if not self.exists(path):
            raise FileNotFoundError(errno.ENOENT, "none", path)
        match self._split(path):
            case ["cfg", "cluster", "comms", name]:
                nodeid = self.comms.pop(name).nodeid
                self.log.append(("comm_dropped", nodeid))
                for ls_name, ls in self.lockspaces.items():
                    if nodeid in ls.members and not ls.stopped:
                        self.violations.append(f"comms/{nodeid} dropped while {ls_name} runs with it")
            case ["cfg", "cluster", "spaces", name]:
                if self.spaces[name]:
                    raise OSError(errno.ENOTEMPTY, "not empty", path)
                del self.spaces[name]
            case ["cfg", "cluster", "spaces", space, "nodes", name]:
                del self.spaces[space][name]
            case _:
                raise OSError(errno.EPERM, "not ours", path)

    def listdir(self, path: str) -> list[str]:
        if not self.exists(path):
            raise FileNotFoundError(errno.ENOENT, "none", path)
        match self._split(path):
            case ["dlm"]:
                return sorted(self.lockspaces)
            case ["cfg", "cluster", "comms"]:
                return sorted(self.comms)
            case ["cfg", "cluster", "spaces"]:
                return sorted(self.spaces)
            case ["cfg", "cluster", "spaces", space, "nodes"]:
                return sorted(self.spaces[space])
        raise AssertionError(path)

    def exists(self, path: str) -> bool:
        match self._split(path):
            case ["dlm"] | ["cfg"]:
                return True
            case ["dlm", name]:
                return name in self.lockspaces
            case ["cfg", "cluster", *rest] if self.cluster is not None:
                match rest:
                    case [] | ["comms"] | ["spaces"]:
                        return True
                    case ["comms", name]:
                        return name in self.comms
                    case ["spaces", name] | ["spaces", name, "nodes"]:
                        return name in self.spaces
                    case ["spaces", space, "nodes", name]:
                        return name in self.spaces.get(space, {})
        return False

    def read(self, path: str) -> str:
        if path.startswith("/sys/fs/gfs2/"):
            raise FileNotFoundError(2, "nothing is mounted", path)
        try:
            return self._read(self._split(path))
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "none", path) from None

    def _read(self, parts: list[str]) -> str:
        match parts:
            case ["dlm", name, "id"]:
                return str(self.lockspaces[name].id)
            case ["dlm", name, "nodir"]:
                return str(self.lockspaces[name].nodir)
            case ["dlm", name, "recover_status"]:
                return f"{self.lockspaces[name].status:x}"
            case ["cfg", "cluster", "comms", name, "nodeid"]:
                return str(self.comms[name].nodeid)
            case ["cfg", "cluster", "comms", name, "local"]:
                return str(int(self.comms[name].local))
            case ["cfg", "cluster", "comms", name, "addr_list"]:
                return "\n".join("AF_INET\t" + ".".join(map(str, a[4:8])) for a in self.comms[name].addresses)
            case ["cfg", "cluster", "spaces", space, "nodes", name, "nodeid"]:
                return str(self.spaces[space][name].nodeid)
            case ["cfg", "cluster", "spaces", space, "nodes", name, "weight"]:
                return str(self.spaces[space][name].weight)
            case ["cfg", "cluster", option] if self.cluster is not None:
                return self.cluster[option]
        raise AssertionError(parts)

    def write(self, path: str, data: bytes) -> None:
        self._fail("write", path)
        try:
            self._write(self._split(path), data)
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "none", path) from None

    def _write(self, parts: list[str], data: bytes) -> None:
        match parts:
            case ["dlm", name, "control"]:
                (self._stop if data == b"0" else self._start)(name, self.lockspaces[name])
            case ["dlm", name, "event_done"]:
                self._event_done(name, self.lockspaces[name], int(data))
            case ["dlm", name, "id"]:
                self.lockspaces[name].id = int(data)
            case ["dlm", name, "nodir"]:
                self.lockspaces[name].nodir = int(data)
            case ["cfg", "cluster", "comms", name, "nodeid"]:
                self.comms[name].nodeid = int(data)
            case ["cfg", "cluster", "comms", name, "local"]:
                self.comms[name].local = not any(c.local for c in self.comms.values())
            case ["cfg", "cluster", "comms", name, "addr"]:
                if len(data) != SOCKADDR_SIZE or self.comms[name].nodeid < 0:
                    raise OSError(errno.EINVAL, "address", name)
                self.comms[name].addresses.append(data)
            case ["cfg", "cluster", "spaces", space, "nodes", name, "nodeid"]:
                node = self.spaces[space][name]
                node.nodeid = int(data)
                comm = self._comm(node.nodeid)
                node.comm_seq = comm.seq if comm else 0
            case ["cfg", "cluster", "spaces", space, "nodes", name, "weight"]:
                self.spaces[space][name].weight = int(data)
            case ["cfg", "cluster", option] if self.cluster is not None:
                if self.busy_options:
                    raise OSError(errno.EBUSY, "busy", option)
                assert option in self.cluster
                self.cluster[option] = data.decode()
            case _:
                raise AssertionError(parts)

    # --- fs/dlm -----------------------------------------------------------------------------------------------------------------------

    def _comm(self, nodeid: int) -> Comm | None:
        return next((c for c in self.comms.values() if c.nodeid == nodeid), None)

    def _stop(self, name: str, ls: Lockspace) -> None:
        ls.stopped, ls.status = True, 0
        self.log.append(("control", name, 0))

    def _start(self, name: str, ls: Lockspace) -> None:
        if not ls.stopped:
            self.violations.append(f"control=1 of {name} while it runs")
            return
        nodes = {n.nodeid: n for n in self.spaces.get(name, {}).values()}
        if not nodes or -1 in nodes:
            self.violations.append(f"control=1 of {name} with nodes {sorted(nodes)}")
            return
        if ls.id == 0:
            self.violations.append(f"control=1 of {name} without an id")
        removed = {n for n in ls.members if n not in nodes or nodes[n].new}
        for n in sorted(removed):
            comm = self._comm(n)
            clean = comm is not None and comm.seq == ls.members[n]
            self.log.append(("left" if clean else "failed", name, n))
        for n, node in nodes.items():
            if n not in ls.members or n in removed:
                comm = self._comm(n)
                if comm is None or not comm.addresses or comm.seq != node.comm_seq:
                    self.violations.append(f"{name} adds {n} without its comm")
                ls.members[n] = node.comm_seq
            node.new = False
        for n in [n for n in ls.members if n not in nodes]:
            del ls.members[n]
        ls.stopped, ls.status = False, 0
        self.log.append(("control", name, 1, tuple(sorted(nodes))))
        self.on_start(name, removed)

    def _event_done(self, name: str, ls: Lockspace, result: int) -> None:
        if not ls.waiting:
            self.violations.append(f"event_done={result} of {name} is latched: nobody waits")
            return
        was, ls.waiting = ls.waiting, ""
        self.log.append(("event_done", name, was, result))
        if was == "offline":
            if name in self.spaces:
                self.violations.append(f"{name} left with its configfs directory in place")
            if not ls.stopped:
                self.violations.append(f"{name} left while it runs")
        if was == "offline" or result < 0:
            del self.lockspaces[name]

    # --- small ------------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _split(path: str) -> list[str]:
        for root, name in ((CONFIG, "cfg"), (DLM, "dlm")):
            if path == root or path.startswith(root + "/"):
                return [name, *[p for p in path[len(root) :].split("/") if p]]
        raise AssertionError(path)

    def _fail(self, op: str, path: str) -> None:
        code = self.fail(op, path)
        if code:
            raise OSError(code, os.strerror(code), path)
