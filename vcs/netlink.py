# SPDX-License-Identifier: GPL-2.0-only
"""The switch in the kernel: ports of bridge/switch.py over the generic netlink family `vcs`.

The only file that knows pyroute2, and it uses it to encode and decode, nothing more: its sockets bring event loops
of their own, and we are called from inside one (see vcs/genl.py). The message classes are built from vcs/_spec.py,
which is made from kmod/spec/vcs.yaml; no attribute number is written here.

pyroute2 is imported when the first :class:`KernelSwitch` is made, and only its codec: the package's ``__init__``
imports every protocol it knows (140 ms against 20 ms on a quick machine, seconds under emulation).
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import struct
import sys
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

from bridge.switch import Attachment, ClusterInfo, Hint, Joined, SwitchInfo
from vcs import _spec
from vcs.errors import SwitchError
from vcs.genl import GENL_HEADER_LEN, HEADER, HINT_BUFFER_BYTES, HintSocket, Overrun, RequestSocket
from vcs.model import Group, GroupFlags, Level, Member, Phase, RingId, View
from vcs.netlink_values import (
    Attributes,
    cluster_info,
    groups_of,
    hint_of,
    member_list,
    number,
    pack,
    unpack,
    view_of,
)

CALL_TIMEOUT_S = 10.0
"No command waits for anybody; this is for a machine that is stuck."
NO_MODULE = "the vcs module is not loaded"
GENL_HEADER = struct.Struct("=BBH")
"Command, version, reserved."
COMMAND_NAMES = {value: name for name, value in _spec.COMMANDS.items()}
TYPES = {"u32": "uint32", "u64": "uint64", "string": "asciiz", "binary": "cdata", "nest": "cdata", "pad": "none"}
"Attribute types of the tables -> those of pyroute2."


def load_codec() -> ModuleType:
    """pyroute2.netlink without the rest of pyroute2, if that is not loaded already."""
    if "pyroute2.netlink" in sys.modules or "pyroute2" in sys.modules:
        return importlib.import_module("pyroute2.netlink")
    spec = importlib.util.find_spec("pyroute2")
    if spec is None:
        raise SwitchError(errno.ENOSYS, "the Python package pyroute2 is not installed")
    # The submodule needs a parent to be found; one that was never executed does. It goes again at once, so that
    # whoever imports pyroute2 later gets the whole of it.
    sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module("pyroute2.netlink")
    finally:
        del sys.modules["pyroute2"]


class Codec:
    """Attributes <-> bytes, by the tables."""

    def __init__(self) -> None:
        self._netlink = load_codec()
        self.controller: int = self._netlink.GENL_ID_CTRL

    def message_class(self) -> Any:
        """pyroute2's class for messages of the family, for comparison; nests are given and taken as bytes (see pack)."""
        table = [
            (a.value, a.name, TYPES[a.type], self._netlink.NLA_F_NESTED if a.type == "nest" else 0)
            for a in _spec.ATTRIBUTE_SETS["vcs"]
        ]
        return type("vcs_message", (self._netlink.genlmsg,), {"nla_map": tuple(table), "__slots__": ()})

    def encode(self, command: str, values: Attributes) -> bytes:
        """Generic netlink header and attributes of a request (without the netlink header).

        By the tables, without pyroute2, as decode() and for the same reason: a start took 370 microseconds and takes 8. That
        pyroute2 makes the same bytes of it is tested."""
        return GENL_HEADER.pack(_spec.COMMANDS[command], _spec.VERSION, 0) + pack(values)

    def decode(self, message: memoryview) -> tuple[str, Attributes]:
        """(command, attributes) of a whole message. Raises SwitchError EPROTO when it cannot be read.

        By the tables, without pyroute2: an object for each attribute made a read of one group cost 350
        microseconds instead of 40, and it is read after every hint. That both read the same is tested."""
        if len(message) < HEADER.size + GENL_HEADER_LEN:
            raise SwitchError(errno.EPROTO, f"the kernel's message has {len(message)} bytes")
        return COMMAND_NAMES.get(message[HEADER.size], ""), unpack(message, HEADER.size + GENL_HEADER_LEN)

    def family(self) -> bytes:
        """The controller's request for our family (without the netlink header)."""
        msg = self._netlink.ctrlmsg()
        msg["cmd"] = self._netlink.CTRL_CMD_GETFAMILY
        msg["version"] = 1
        msg["attrs"] = [["CTRL_ATTR_FAMILY_NAME", _spec.FAMILY]]
        msg.encode()
        return bytes(msg.data[HEADER.size :])

    def decode_family(self, message: memoryview) -> tuple[int, dict[str, int]]:
        """(message type of the family, multicast groups by name)."""
        try:
            msg = self._netlink.ctrlmsg(bytes(message))
            msg.decode()
            groups = {
                g.get_attr("CTRL_ATTR_MCAST_GRP_NAME"): g.get_attr("CTRL_ATTR_MCAST_GRP_ID")
                for g in msg.get_attr("CTRL_ATTR_MCAST_GROUPS") or ()
            }
            return int(msg.get_attr("CTRL_ATTR_FAMILY_ID")), groups
        except Exception as e:
            raise SwitchError(errno.EPROTO, f"the controller's answer cannot be decoded: {e!r}") from e


@cache
def codec() -> Codec:
    """The one codec: building its classes takes ten milliseconds."""
    return Codec()


def attribute_name(kind: int, nest: int) -> str:
    """Name of an attribute by its number, for messages; ``nest`` is the number of the nest around it, or 0."""
    table = _spec.ATTRIBUTE_SETS["vcs"]
    if nest:
        table = _spec.ATTRIBUTE_SETS[next((a.nested for a in table if a.value == nest and a.nested), "vcs")]
    return next((a.name for a in table if a.value == kind), "")


def controller_attribute(kind: int, nest: int) -> str:
    return ""


class KernelSwitch:
    """One socket of the switch in the kernel: ProviderPort, ConsumerPort and Reader.

    A session lives as long as the object (its socket, rather): keep it. Raises SwitchError ENOENT if the module is
    not loaded. ``hint_buffer`` is the receive buffer for hints in bytes."""

    def __init__(self, timeout_s: float = CALL_TIMEOUT_S, hint_buffer: int = HINT_BUFFER_BYTES) -> None:
        self._codec = codec()
        self._hint_buffer = hint_buffer
        self._hint_socket: HintSocket | None = None
        self._socket = RequestSocket(timeout_s)
        try:
            self._family, self._groups = self._resolve()
        except BaseException:
            self._socket.close()
            raise

    def _resolve(self) -> tuple[int, dict[str, int]]:
        try:
            answer = self._socket.request(self._codec.controller, 0, self._codec.family(), controller_attribute)
        except SwitchError as e:
            if e.errno != errno.ENOENT:
                raise
            raise SwitchError(errno.ENOENT, f"{NO_MODULE}; modprobe vcs") from None
        if not answer:
            raise SwitchError(errno.EPROTO, "the controller did not answer")
        return self._codec.decode_family(answer[0])

    # --- calls ----------------------------------------------------------------------------------------------

    def _do(self, command: str, **values: Any) -> Attributes:
        """One command; its answer's attributes, empty for a plain acknowledgement. Underscores stand for dashes."""
        body = self._encode(command, values)
        try:
            answers = self._socket.request(self._family, 0, body, attribute_name)
        except Overrun:
            raise SwitchError(errno.ENOBUFS, f"the answer to {command} was lost") from None
        return self._codec.decode(answers[0])[1] if answers else {}

    def _dump(self, command: str, **values: Any) -> list[Attributes]:
        body = self._encode(command, values)
        return [self._codec.decode(m)[1] for m in self._socket.dump(self._family, body, attribute_name)]

    def _encode(self, command: str, values: Attributes) -> bytes:
        named = {name.replace("_", "-"): value for name, value in values.items() if value is not None}
        try:
            return self._codec.encode(command, named)
        except Exception as e:
            # A number that does not fit its attribute, for one: the kernel would answer the same.
            raise SwitchError(errno.ERANGE, f"{command} cannot be encoded: {e}") from e

    # --- Reader ---------------------------------------------------------------------------------------------

    def info(self) -> SwitchInfo:
        a = self._do("info-get")
        return SwitchInfo(number(a, "api-version"), number(a, "capabilities"), number(a, "incarnation"))

    def clusters(self) -> list[ClusterInfo]:
        return [cluster_info(a) for a in self._dump("cluster-get")]

    def view(self, handle: str) -> View:
        return view_of(self._dump("view-get", handle=handle))

    def groups(self, handle: str) -> list[Group]:
        return groups_of(self._dump("group-get", handle=handle))

    def group(self, handle: str, name: str) -> Group:
        # By a dump: it goes on in a next message where one would not hold all members.
        found = groups_of(self._dump("group-get", handle=handle, group=name))
        if not found:
            raise SwitchError(errno.ENOENT, f"no group {name}", "group")
        return found[0]

    def hints_fd(self) -> int:
        return self._hints().fileno()

    def _hints(self) -> HintSocket:
        if self._socket.fileno() < 0:
            raise SwitchError(errno.EBADF, "the socket to the switch is closed")
        if self._hint_socket is None:
            group = self._groups.get(_spec.MCAST_GROUPS[0])
            if group is None:
                raise SwitchError(errno.EPROTO, "the family has no multicast group for hints")
            self._hint_socket = HintSocket(group, self._hint_buffer)
        return self._hint_socket

    def hints(self) -> list[Hint]:
        hints: list[Hint] = []
        try:
            for message in self._hints().read():
                hints.append(hint_of(*self._codec.decode(message)))
        except Overrun:
            hints.append(Hint("lost"))
        except SwitchError as e:
            if e.errno != errno.EPROTO:
                raise
            hints.append(Hint("lost"))
        return hints

    def close(self) -> None:
        self._socket.close()
        if self._hint_socket is not None:
            self._hint_socket.close()

    # --- ProviderPort ---------------------------------------------------------------------------------------

    def cluster_add(self, handle: str, name: str, nodeid: int) -> None:
        self._do("cluster-add", handle=handle, name=name, nodeid=nodeid)

    def cluster_del(self, handle: str) -> None:
        self._do("cluster-del", handle=handle)

    def attach(self, handle: str, lease_ms: int, grace_ms: int = 0) -> Attachment:
        # A module without the reset does not know the attribute; who wants no reset need not name it.
        a = self._do("provider-attach", handle=handle, provider="user", lease_ms=lease_ms, grace_ms=grace_ms or None)
        return Attachment(number(a, "session"), number(a, "incarnation"), number(a, "highest-event"))

    def detach(self, handle: str, session: int) -> None:
        self._do("provider-detach", handle=handle, session=session)

    def attach_kernel(self, handle: str, provider: str, config: Attributes) -> None:
        """Seat a provider that lives in the kernel. It stays there when this socket is closed, until :meth:`detach_kernel`."""
        self._do("provider-attach", handle=handle, provider=provider, config=[config])

    def detach_kernel(self, handle: str) -> None:
        """ESTALE when no provider in the kernel has the seat."""
        self._do("provider-detach", handle=handle)

    def view_set(
        self, handle: str, session: int, ring: RingId, quorate: bool, members: Sequence[Member]
    ) -> int:
        flags = _spec.ENUMS["view-flags"]["quorate"] if quorate else 0
        a = self._do(
            "view-set", handle=handle, session=session, ring_seq=ring.seq, ring_rep=ring.rep, view_flags=flags,
            member=member_list(members),
        )
        return number(a, "generation")

    def lease_renew(self, handle: str, session: int, valid_from_ns: int) -> None:
        self._do("lease-renew", handle=handle, session=session, valid_from_ns=valid_from_ns)

    def lease_freeze(self, handle: str, session: int, until_ns: int) -> None:
        self._do("lease-freeze", handle=handle, session=session, freeze_until_ns=until_ns)

    def group_stop(self, handle: str, session: int, group: str, event: int) -> None:
        self._do("group-stop", handle=handle, session=session, group=group, event=event)

    def group_start(
        self, handle: str, session: int, group: str, event: int, members: Sequence[Member]
    ) -> None:
        self._do(
            "group-start", handle=handle, session=session, group=group, event=event, member=member_list(members)
        )

    def group_finish(self, handle: str, session: int, group: str, event: int) -> None:
        self._do("group-finish", handle=handle, session=session, group=group, event=event)

    def group_left(self, handle: str, session: int, group: str, error: int = 0) -> None:
        self._do("group-left", handle=handle, session=session, group=group, error=error)

    def fenced(self, handle: str, session: int, nodeid: int, incarnation: int, error: int = 0) -> None:
        self._do(
            "fenced", handle=handle, session=session, nodeid=nodeid, incarnation=incarnation, error=error
        )

    # --- ConsumerPort ---------------------------------------------------------------------------------------

    def join(self, handle: str, group: str, level: Level, flags: GroupFlags, owner: str) -> Joined:
        a = self._do(
            "group-join", handle=handle, group=group, level=int(level), group_flags=int(flags), owner=owner
        )
        return Joined(number(a, "session"), number(a, "owner-epoch"), bool(a.get("taken-over", 0)))

    def ack(self, handle: str, session: int, group: str, event: int, phase: Phase) -> None:
        self._do("group-ack", handle=handle, session=session, group=group, event=event, phase=int(phase))

    def leave(self, handle: str, session: int, group: str) -> None:
        self._do("group-leave", handle=handle, session=session, group=group)

    def claim(self, name: str, data: bytes | None = None) -> bytes:
        return bytes(self._do("claim", claim=name, claim_data=data).get("claim-data", b""))
