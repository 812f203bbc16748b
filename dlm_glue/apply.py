# SPDX-License-Identifier: GPL-2.0-only
"""Carries out the plan's steps on configfs and sysfs. It decides nothing, and it reads back what it wrote: ``control=1`` reports no
error, a second ``local`` is ignored silently, and nothing in the kernel checks an order (``docs/dlm.md``).

Every method may be called again after it failed half-way. All of them may sleep, so they run in worker threads.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from dlm_glue.lockspace import ADDRESSES_MAX, Paths, Tree, parse_addr_list, read_status, sockaddr
from dlm_glue.state import AddComms, Answer, Clear, DropComms, Start, Stop, Teardown, global_id
from vcs.config.model import LockspaceConfig
from vcs.errors import VcsError

Closing = Callable[[Sequence[str]], contextlib.AbstractContextManager[object]]
PROTOCOLS = {"tcp": ("0", "tcp"), "sctp": ("1", "sctp")}
"What to write, and what else it may read back as."


class ApplyError(VcsError):
    """The kernel did not do what it was told. ``errno`` is positive; EPROTO: a value read back is not the one written."""

    def __init__(self, code: int, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.errno = code


@dataclass(frozen=True, slots=True)
class Setup:
    """What is set once per node."""

    cluster_name: str
    nodeid: int
    addresses: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    "By nodeid, at most three each."
    port: int = 21064
    protocol: str = "tcp"
    log_debug: bool = False


class Applier:
    def __init__(self, tree: Tree, setup: Setup, paths: Paths | None = None, closing: Closing = contextlib.nullcontext) -> None:
        """``closing``: entered with a node's addresses while its connection is being closed."""
        self._closing = closing
        self._tree = tree
        self._setup = setup
        self.paths = paths or Paths()

    @property
    def cluster(self) -> str:
        """The cluster's name: the first part of a GFS2's lock table."""
        return self._setup.cluster_name

    # --- once -------------------------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The cluster's directory and options, then the local comm: without that one a join fails (6.1) or worse (6.12)."""
        if not self._tree.exists(self.paths.dlm) or not self._tree.exists(self.paths.config):
            raise ApplyError(errno.ENODEV, f"{self.paths.config} is not there", "load the module dlm and mount configfs")
        self._mkdir(self.paths.cluster)
        self._option("cluster_name", self._setup.cluster_name)
        self._option("recover_callbacks", "1")
        self._option("log_debug", str(int(self._setup.log_debug)))
        # Both are refused (EBUSY) once the DLM runs: then they must already be right.
        self._option("tcp_port", str(self._setup.port))
        self._option("protocol", *PROTOCOLS[self._setup.protocol])
        self._local()

    def _option(self, name: str, value: str, *same: str) -> None:
        path = f"{self.paths.cluster}/{name}"
        now = self._tree.read(path)
        if now in (value, *same):
            return
        try:
            self._tree.write(path, value.encode())
        except OSError as error:
            remedy = "unmount what uses the DLM first" if error.errno == errno.EBUSY else ""
            raise ApplyError(error.errno or errno.EIO, f"DLM option {name} is {now!r}, not {value!r}: {error.strerror}", remedy) from None
        now = self._tree.read(path)
        if now not in (value, *same):
            raise ApplyError(errno.EPROTO, f"DLM option {name} reads {now!r} after {value!r} was written")

    def _local(self) -> None:
        me = self._setup.nodeid
        for name in self._tree.listdir(self.paths.comms):
            if name != str(me) and self._tree.read(f"{self.paths.comms}/{name}/local") == "1":
                raise ApplyError(errno.EBUSY, f"the DLM of this machine is node {name}, not {me}", "reboot it")
        path = self.paths.comm(me)
        if self._tree.exists(path) and self._tree.read(f"{path}/local") == "1":
            return
        self._comm(me)
        self._tree.write(f"{path}/local", b"1")
        self._expect(f"{path}/local", "1")

    # --- comms ------------------------------------------------------------------------------------------------------------------------

    def add_comms(self, effect: AddComms) -> None:
        for nodeid in effect.nodes:
            self._comm(nodeid)

    def drop_comms(self, effect: DropComms) -> None:
        for nodeid in effect.nodes:
            with self._closing(self._setup.addresses.get(nodeid, ())):
                self._rmdir(self.paths.comm(nodeid))

    def _comm(self, nodeid: int) -> None:
        """A fresh comms/N: nodeid, then the addresses. What is left of a failed try goes first."""
        path = self.paths.comm(nodeid)
        self._rmdir(path)
        self._tree.mkdir(path)
        self._tree.write(f"{path}/nodeid", str(nodeid).encode())
        self._expect(f"{path}/nodeid", str(nodeid))
        wanted = tuple(str(ip_address(a)) for a in self._setup.addresses[nodeid][:ADDRESSES_MAX])
        for address in wanted:
            self._tree.write(f"{path}/addr", sockaddr(address))
        there = parse_addr_list(self._tree.read(f"{path}/addr_list"))
        if there != wanted:
            raise ApplyError(errno.EPROTO, f"comms/{nodeid} has addresses {there}, not {wanted}")

    # --- a lockspace ------------------------------------------------------------------------------------------------------------------

    def stop(self, effect: Stop) -> None:
        """control=0; returns when locking is stopped. A lockspace that is gone is stopped."""
        base = self.paths.lockspace(effect.lockspace)
        if not self._tree.exists(base):
            return
        try:
            self._tree.write(f"{base}/control", b"0")
            status = read_status(self._tree, self.paths, effect.lockspace)
        except FileNotFoundError:
            return
        if status != 0:
            raise ApplyError(errno.EPROTO, f"lockspace {effect.lockspace}: recover_status {status:x} after a stop")

    def clear(self, effect: Clear) -> None:
        for nodeid in effect.nodes:
            self._rmdir(self.paths.node(effect.lockspace, nodeid))

    def start(self, effect: Start) -> None:
        """Everything before control=1 is read back; when this raises, control=1 was not written."""
        name = effect.lockspace
        base = self.paths.lockspace(name)
        config = LockspaceConfig.parse(effect.config)
        self._identity(name, base, config.nodir)
        self._mkdir(self.paths.space(name))
        for there in self._tree.listdir(self.paths.nodes(name)):
            if not there.isdigit() or int(there) not in effect.keep:
                self._rmdir(f"{self.paths.nodes(name)}/{there}")
        for nodeid in effect.members:
            if nodeid not in effect.keep:
                self._node(name, nodeid, config.weight(nodeid))
        self._check_nodes(effect, config)
        self._tree.write(f"{base}/control", b"1")

    def _identity(self, name: str, base: str, nodir: bool) -> None:
        """The global id and the directory mode must be the same everywhere; both can only be set before the first start."""
        wanted = str(global_id(name))
        if self._tree.read(f"{base}/id") != wanted:
            self._tree.write(f"{base}/id", wanted.encode())
            self._expect(f"{base}/id", wanted)
        if nodir and self._tree.read(f"{base}/nodir") != "1":
            self._tree.write(f"{base}/nodir", b"1")
            self._expect(f"{base}/nodir", "1")

    def _node(self, name: str, nodeid: int, weight: int) -> None:
        """A fresh directory marks the node as new; its nodeid takes the sequence number of comms/N, which must be there."""
        if not self._tree.exists(self.paths.comm(nodeid)):
            raise ApplyError(errno.ENOENT, f"lockspace {name}: no comms/{nodeid} for a member")
        path = self.paths.node(name, nodeid)
        self._tree.mkdir(path)
        self._tree.write(f"{path}/nodeid", str(nodeid).encode())
        # The kernel never compares weights, and where they differ between nodes lookups end with -22.
        self._tree.write(f"{path}/weight", str(weight).encode())

    def _check_nodes(self, effect: Start, config: LockspaceConfig) -> None:
        name = effect.lockspace
        there = sorted(int(n) for n in self._tree.listdir(self.paths.nodes(name)) if n.isdigit())
        if tuple(there) != effect.members:
            raise ApplyError(errno.EPROTO, f"lockspace {name}: nodes/ has {there}, not {list(effect.members)}")
        for nodeid in effect.members:
            self._expect(f"{self.paths.node(name, nodeid)}/nodeid", str(nodeid))
            self._expect(f"{self.paths.node(name, nodeid)}/weight", str(config.weight(nodeid)))

    def teardown(self, effect: Teardown) -> None:
        name = effect.lockspace
        self.stop(Stop(name))
        if not self._tree.exists(self.paths.space(name)):
            return
        for there in self._tree.listdir(self.paths.nodes(name)):
            self._rmdir(f"{self.paths.nodes(name)}/{there}")
        self._rmdir(self.paths.space(name))

    def answer(self, effect: Answer) -> None:
        """Wakes the thread that waits. Nothing can be read back: it may be gone with its lockspace at once."""
        self._tree.write(f"{self.paths.lockspace(effect.lockspace)}/event_done", str(effect.result).encode())

    # --- small ------------------------------------------------------------------------------------------------------------------------

    def _mkdir(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            self._tree.mkdir(path)

    def _rmdir(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._tree.rmdir(path)
        if self._tree.exists(path):
            raise ApplyError(errno.EPROTO, f"{path} is still there after rmdir")

    def _expect(self, path: str, value: str) -> None:
        now = self._tree.read(path)
        if now != value:
            raise ApplyError(errno.EPROTO, f"{path} reads {now!r} after {value!r} was written")
