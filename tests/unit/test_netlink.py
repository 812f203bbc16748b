# SPDX-License-Identifier: GPL-2.0-only
"""vcs/netlink without a kernel: bytes of requests, answers by the tables, refusals, and answers that make no sense.

The kernel's part is played by the other end of a socket pair, which answers what the test says.
"""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.switch import Hint
from vcs import _spec, genl
from vcs.errors import SwitchError
from vcs.genl import HEADER, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR
from vcs.model import GroupFlags, GroupState, Level, Member, Phase, ProviderState, RingId
from vcs.netlink import KernelSwitch, attribute_name, codec
from vcs.netlink_values import hint_of, unpack

FAMILY = 0x1F
CONTROLLER = 0x10
HINT_GROUP = 6
GENL = struct.Struct("=BBH")

Answers = list[bytes]
Handler = Callable[[bytes, int], Answers]
"(request, its sequence number) -> datagrams"


def message(kind: int, body: bytes, seq: int, flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, seq, 0) + body + b"\0" * (-len(body) % 4)


def answer(command: str, values: dict[str, Any], seq: int, flags: int = 0) -> bytes:
    return message(FAMILY, codec().encode(command, values), seq, flags)


def ack(seq: int, request: bytes = b"\0" * 16) -> bytes:
    return message(NLMSG_ERROR, struct.pack("=i", 0) + request[:16], seq, NLM_F_CAPPED)


def done(seq: int, code: int = 0) -> bytes:
    return message(NLMSG_DONE, struct.pack("=i", code), seq)


def refusal(seq: int, request: bytes, code: int, *tlvs: tuple[int, bytes], capped: bool = True) -> bytes:
    extra = b"".join(attribute(kind, payload) for kind, payload in tlvs)
    echo = request[:16] if capped else request + b"\0" * (-len(request) % 4)
    flags = (NLM_F_CAPPED if capped else 0) | (NLM_F_ACK_TLVS if extra else 0)
    return message(NLMSG_ERROR, struct.pack("=i", -code) + echo + extra, seq, flags)


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def family_answer(seq: int) -> bytes:
    group = attribute(1, attribute(2, struct.pack("=I", HINT_GROUP)) + attribute(1, b"hints\0"))
    body = GENL.pack(1, 2, 0) + attribute(2, b"vcs\0") + attribute(1, struct.pack("=H", FAMILY)) + attribute(7, group)
    return message(CONTROLLER, body, seq)


class FakeKernel:
    """The other end of each socket that the code opens."""

    def __init__(self) -> None:
        self.handler: Handler = lambda request, seq: [ack(seq, request)]
        self.requests: list[bytes] = []
        self.ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ends.append(theirs)
        thread = threading.Thread(target=self._serve, args=(theirs,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return ours

    def _serve(self, end: socket.socket) -> None:
        while True:
            try:
                request = end.recv(1 << 20)
            except OSError:
                return
            if not request:
                return
            length, kind, _, seq, _ = HEADER.unpack_from(request)
            assert length == len(request)
            if kind == CONTROLLER:
                replies = [family_answer(seq), ack(seq, request)]
            else:
                self.requests.append(request)
                replies = self.handler(request, seq)
            with suppress(OSError):  # the caller has given up, as the test wanted
                for datagram in replies:
                    end.send(datagram)

    def close(self) -> None:
        for end in self.ends:
            end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    far = FakeKernel()
    monkeypatch.setattr(genl, "open_socket", far.open)
    yield far
    far.close()


@pytest.fixture
def port(far: FakeKernel) -> Iterator[KernelSwitch]:
    port = KernelSwitch(timeout_s=5)
    yield port
    port.close()


def sent(far: FakeKernel) -> tuple[str, dict[str, Any]]:
    command, values = codec().decode(memoryview(far.requests[-1]))
    return command, dict(values)


# --- requests ---------------------------------------------------------------------------------------------------

HEAD = {"handle": "c", "session": 1 << 63}
CALLS: dict[str, tuple[Callable[[KernelSwitch], object], str, dict[str, Any]]] = {
    "cluster_add": (
        lambda p: p.cluster_add("c", "ä", 0xFFFF_FFFF), "cluster-add",
        {"handle": "c", "name": "ä", "nodeid": 0xFFFF_FFFF},
    ),
    "cluster_del": (lambda p: p.cluster_del("c"), "cluster-del", {"handle": "c"}),
    "detach": (lambda p: p.detach("c", 1 << 63), "provider-detach", HEAD),
    "lease_renew": (
        lambda p: p.lease_renew("c", 1 << 63, 5), "lease-renew", HEAD | {"valid-from-ns": 5}
    ),
    "lease_freeze": (
        lambda p: p.lease_freeze("c", 1 << 63, 1 << 63), "lease-freeze", HEAD | {"freeze-until-ns": 1 << 63}
    ),
    "stop": (lambda p: p.group_stop("c", 1 << 63, "g", 9), "group-stop", HEAD | {"group": "g", "event": 9}),
    "start": (
        lambda p: p.group_start("c", 1 << 63, "g", 9, [Member(1, (1 << 64) - 1, 0, 7)]), "group-start",
        HEAD | {"group": "g", "event": 9, "member": [
            {"nodeid": 1, "votes": 0, "incarnation": (1 << 64) - 1, "join-id": 7}
        ]},
    ),
    "finish": (
        lambda p: p.group_finish("c", 1 << 63, "g", 9), "group-finish", HEAD | {"group": "g", "event": 9}
    ),
    "left": (
        lambda p: p.group_left("c", 1 << 63, "g", 5), "group-left", HEAD | {"group": "g", "error": 5}
    ),
    "fenced": (
        lambda p: p.fenced("c", 1 << 63, 2, 3), "fenced", HEAD | {"nodeid": 2, "incarnation": 3, "error": 0}
    ),
    "ack": (
        lambda p: p.ack("c", 1 << 63, "g", 9, Phase.START), "group-ack",
        HEAD | {"group": "g", "event": 9, "phase": 2},
    ),
    "leave": (lambda p: p.leave("c", 1 << 63, "g"), "group-leave", HEAD | {"group": "g"}),
    "claim without data": (lambda p: p.claim("dlm"), "claim", {"claim": "dlm"}),
    "claim with empty data": (lambda p: p.claim("dlm", b""), "claim", {"claim": "dlm", "claim-data": b""}),
}


@pytest.mark.parametrize("call", CALLS)
def test_requests(far: FakeKernel, port: KernelSwitch, call: str) -> None:
    make, command, values = CALLS[call]
    make(port)
    assert sent(far) == (command, values)
    (op,) = [o for o in _spec.OPS if o.name == command]
    assert op.do is not None
    assert set(values) <= set(op.do), "an attribute that the kernel's policy of this command refuses"
    _, kind, flags, _, _ = HEADER.unpack_from(far.requests[-1])
    assert (kind, flags) == (FAMILY, genl.NLM_F_REQUEST | genl.NLM_F_ACK)


def test_every_command_has_a_call(far: FakeKernel, port: KernelSwitch) -> None:
    """Against the tables: a command that was added to the spec is noticed here."""
    answered = {"info-get", "provider-attach", "view-set", "group-join", "cluster-get", "view-get", "group-get"}
    assert {c[1] for c in CALLS.values()} | answered == {o.name for o in _spec.OPS if o.event is None}


def test_nests_carry_the_flag_that_strict_validation_wants() -> None:
    data = codec().encode("view-set", {"member": [{"nodeid": 1}]})
    (kind,) = struct.unpack_from("=H", data, 6)
    member = next(a.value for a in _spec.ATTRIBUTE_SETS["vcs"] if a.name == "member")
    assert kind == member | 0x8000


def test_a_number_that_does_not_fit_is_refused_before_it_is_sent(far: FakeKernel, port: KernelSwitch) -> None:
    with pytest.raises(SwitchError) as caught:
        port.cluster_add("c", "n", 1 << 32)
    assert caught.value.errno == errno.ERANGE
    assert not far.requests


U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64)
VALUES = {"u32": U32, "u64": U64, "string": TEXT, "binary": st.binary(max_size=200)}

def filled(name: str) -> dict[str, st.SearchStrategy[Any]]:
    """A value for each attribute of a set; a nest's are all there."""
    return {
        a.name: st.lists(st.fixed_dictionaries(filled(a.nested)), min_size=1, max_size=4) if a.type == "nest" else VALUES[a.type]
        for a in _spec.ATTRIBUTE_SETS[name] if a.type != "pad"
    }  # fmt: skip


NESTED = {a.name: a.nested for a in _spec.ATTRIBUTE_SETS["vcs"]}
MESSAGE = st.fixed_dictionaries({}, optional=filled("vcs"))


@settings(max_examples=60, deadline=None)
@given(command=st.sampled_from(sorted(_spec.COMMANDS)), values=MESSAGE)
def test_what_is_encoded_is_decoded(command: str, values: dict[str, Any]) -> None:
    data = message(FAMILY, codec().encode(command, values), 1)
    assert codec().decode(memoryview(data)) == (command, values)


@settings(max_examples=60, deadline=None)
@given(values=MESSAGE)
def test_pyroute2_reads_and_writes_the_same(values: dict[str, Any]) -> None:
    """Ours against the library's, on the same bytes; nests are bytes to its class, so ours opens them."""
    data = message(FAMILY, codec().encode("group-get", values), 1)
    msg = codec().message_class()(data)
    msg.decode()
    read: dict[str, Any] = {}
    for slot in msg["attrs"]:
        if isinstance(values[slot.name], list):
            read.setdefault(slot.name, []).append(unpack(memoryview(bytes(slot.value)), 0, NESTED[slot.name]))
        else:
            read[slot.name] = slot.value
    assert read == values
    again = codec().message_class()()
    again["cmd"], again["version"], again["attrs"] = msg["cmd"], msg["version"], [[s.name, s.value] for s in msg["attrs"]]
    again.encode()
    assert bytes(again.data[HEADER.size :]) == data[HEADER.size :]


@pytest.mark.parametrize("body", [
    attribute(6, b"no end"), attribute(7, b"\1\0"), attribute(7, b"\1" * 8), attribute(4, b"\1" * 4),
    attribute(22, attribute(2, b"\1")), attribute(7, b"\1\0\0\0") + b"\1\2\3\4", struct.pack("=HH", 3, 7),
    struct.pack("=HHI", 40, 7, 1),
], ids=["string", "short", "long", "short u64", "in a nest", "bytes behind", "length below 4", "length too long"])
def test_malformed_attributes_are_refused(body: bytes) -> None:
    with pytest.raises(SwitchError) as caught:
        codec().decode(memoryview(message(FAMILY, GENL.pack(1, 1, 0) + body, 1)))
    assert caught.value.errno == errno.EPROTO


def test_attributes_of_a_newer_kernel_are_passed_over() -> None:
    body = GENL.pack(1, 1, 0) + attribute(4000, b"new") + attribute(1, b"") + attribute(7, struct.pack("=I", 5))
    assert codec().decode(memoryview(message(FAMILY, body, 1))) == ("info-get", {"nodeid": 5})


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=120))
def test_garbage_is_decoded_or_refused(data: bytes) -> None:
    try:
        codec().decode(memoryview(message(FAMILY, data, 1)))
    except SwitchError as e:
        assert e.errno == errno.EPROTO


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=120))
def test_garbage_as_messages_is_refused(data: bytes) -> None:
    try:
        for _, _, _, part in genl.messages(memoryview(data)):
            assert len(part) >= HEADER.size
    except SwitchError as e:
        assert e.errno == errno.EPROTO


# --- answers ----------------------------------------------------------------------------------------------------


def replies(far: FakeKernel, command: str, values: dict[str, Any]) -> None:
    far.handler = lambda request, seq: [answer(command, values, seq), ack(seq, request)]


def dumps(far: FakeKernel, command: str, *parts: dict[str, Any]) -> None:
    far.handler = lambda request, seq: [
        b"".join(answer(command, part, seq, 2) for part in parts) + done(seq)
    ]


def test_answers_of_calls(far: FakeKernel, port: KernelSwitch) -> None:
    replies(far, "info-get", {"api-version": 1, "capabilities": 7, "incarnation": 1 << 63})
    assert port.info().incarnation == 1 << 63
    replies(far, "provider-attach", {"session": 5, "incarnation": 6, "highest-event": 7, "generation": 1})
    attachment = port.attach("c", 5000)
    assert (attachment.session, attachment.incarnation, attachment.highest_event) == (5, 6, 7)
    assert sent(far)[1] == {"handle": "c", "provider": "user", "lease-ms": 5000}
    replies(far, "view-set", {"generation": 9})
    assert port.view_set("c", 5, RingId(4, 1), True, [Member(1, 2)]) == 9
    assert sent(far)[1]["view-flags"] == 1
    replies(far, "group-join", {"session": 8, "owner-epoch": 2, "taken-over": 1})
    joined = port.join("c", "g", Level.LOCK_MANAGER, GroupFlags.PERSISTENT, "glue")
    assert (joined.session, joined.owner_epoch, joined.taken_over) == (8, 2, True)
    replies(far, "claim", {"claim": "dlm", "claim-data": b"\0x"})
    assert port.claim("dlm") == b"\0x"


def test_clusters(far: FakeKernel, port: KernelSwitch) -> None:
    one = {"handle": "a", "name": "n", "nodeid": 1, "provider-state": 0, "change-seq": 3}
    two = one | {"handle": "b", "provider": "user", "provider-state": 3, "lease-ms": 9, "lease-remaining-ms": 4}
    dumps(far, "cluster-get", one, two)
    first, second = port.clusters()
    assert (first.provider, first.provider_state, first.lease_ms) == ("", ProviderState.NONE, 0)
    assert (second.provider, second.provider_state, second.lease_remaining_ms) == ("user", ProviderState.LOST, 4)
    dumps(far, "cluster-get")
    assert port.clusters() == []


def test_names_that_are_not_utf8_go_through(far: FakeKernel, port: KernelSwitch) -> None:
    """Anybody with the right can make one; reading must go on, and it must be possible to delete it."""
    odd = b"c\xff".decode("utf-8", "surrogateescape")
    dumps(far, "cluster-get", {"handle": odd, "name": "n", "nodeid": 1, "provider-state": 0, "change-seq": 3})
    (cluster,) = port.clusters()
    assert cluster.handle == odd
    far.handler = lambda request, seq: [ack(seq, request)]
    port.cluster_del(cluster.handle)
    assert b"c\xff\0" in far.requests[-1]


VIEW = {"handle": "c", "generation": 3, "ring-seq": 8, "ring-rep": 1, "view-flags": 1, "nr-members": 3}


def view_members(*nodeids: int) -> list[dict[str, int]]:
    return [{"nodeid": n, "votes": 1, "incarnation": 100 + n} for n in nodeids]


def test_a_view_goes_on_over_messages(far: FakeKernel, port: KernelSwitch) -> None:
    dumps(far, "view-get", VIEW | {"member": view_members(1, 2)}, VIEW | {"member": view_members(3)})
    view = port.view("c")
    assert (view.generation, view.ring, view.quorate) == (3, RingId(8, 1), True)
    assert view.members == (Member(1, 101), Member(2, 102), Member(3, 103))


@pytest.mark.parametrize("parts", [
    (),
    (VIEW | {"member": view_members(1, 2)},),
    (VIEW | {"member": view_members(1, 2)}, VIEW | {"generation": 4, "member": view_members(3)}),
    ({k: v for k, v in VIEW.items() if k != "generation"},),
], ids=["nothing", "a member missing", "two views", "no generation"])
def test_a_view_that_is_not_whole_is_refused(
    far: FakeKernel, port: KernelSwitch, parts: tuple[dict[str, Any], ...]
) -> None:
    dumps(far, "view-get", *parts)
    with pytest.raises(SwitchError) as caught:
        port.view("c")
    assert caught.value.errno == errno.EPROTO


GROUP = {
    "handle": "c", "group": "g", "level": 2, "group-flags": 3, "group-state": 2, "event": 10, "phase": 2,
    "acked-event": 10, "acked-phase": 1, "finished-event": 9, "generation": 3, "owner": "glue", "owner-epoch": 4,
    "orphan-since-ms": 0, "age-ms": 5, "nr-members": 2, "nr-finished-members": 1,
}


def test_groups_go_on_over_messages(far: FakeKernel, port: KernelSwitch) -> None:
    other = GROUP | {"group": "h", "nr-members": 0, "nr-finished-members": 0}
    dumps(
        far, "group-get", GROUP | {"member": view_members(1)}, GROUP | {"member": view_members(2)},
        GROUP | {"finished-member": view_members(1)}, other,
    )
    first, second = port.groups("c")
    assert first.members == (Member(1, 101), Member(2, 102))
    assert first.finished_members == (Member(1, 101),)
    assert (first.level, first.state, first.phase) == (Level.LOCK_MANAGER, GroupState.MEMBER, Phase.START)
    assert first.flags == GroupFlags.PERSISTENT | GroupFlags.NEEDS_FENCE
    assert (second.name, second.members) == ("h", ())


@pytest.mark.parametrize("wrong", [{"group-state": 9}, {"phase": 7}, {"level": 0}, {"nr-members": 5}])
def test_a_group_that_makes_no_sense_is_refused(
    far: FakeKernel, port: KernelSwitch, wrong: dict[str, int]
) -> None:
    dumps(far, "group-get", GROUP | {"nr-members": 0, "nr-finished-members": 0} | wrong)
    with pytest.raises(SwitchError) as caught:
        port.groups("c")
    assert caught.value.errno == errno.EPROTO


def test_a_group_that_is_not_there(far: FakeKernel, port: KernelSwitch) -> None:
    dumps(far, "group-get")
    with pytest.raises(SwitchError) as caught:
        port.group("c", "g")
    assert caught.value.errno == errno.ENOENT


def test_an_interrupted_dump_is_read_again(far: FakeKernel, port: KernelSwitch) -> None:
    tries = 0

    def handler(request: bytes, seq: int) -> Answers:
        nonlocal tries
        tries += 1
        flags = 2 | (NLM_F_DUMP_INTR if tries < 3 else 0)
        empty = GROUP | {"group": f"try{tries}", "nr-members": 0, "nr-finished-members": 0}
        return [answer("group-get", empty, seq, flags), done(seq)]

    far.handler = handler
    assert [g.name for g in port.groups("c")] == ["try3"]
    far.handler = lambda request, seq: [answer("group-get", GROUP, seq, NLM_F_DUMP_INTR), done(seq)]
    with pytest.raises(SwitchError) as caught:
        port.groups("c")
    assert caught.value.errno == errno.EBUSY


def test_a_dump_can_fail_at_its_end(far: FakeKernel, port: KernelSwitch) -> None:
    far.handler = lambda request, seq: [done(seq, -errno.ENOENT)]
    with pytest.raises(SwitchError) as caught:
        port.groups("c")
    assert caught.value.errno == errno.ENOENT


# --- refusals ---------------------------------------------------------------------------------------------------


def test_a_refusal_has_the_kernels_words_and_the_attribute(far: FakeKernel, port: KernelSwitch) -> None:
    def handler(request: bytes, seq: int) -> Answers:
        # The second member of the request, inside it the incarnation.
        member = genl.name_at(memoryview(request), 20, attribute_name)
        assert member == "handle"
        offset = request.index(struct.pack("=Q", 0xABCDEF)) - 4
        tlvs = ((1, b"the member is not known\0"), (2, struct.pack("=I", offset)))
        return [refusal(seq, request, errno.EPROTO, *tlvs)]

    far.handler = handler
    with pytest.raises(SwitchError, match="the member is not known") as caught:
        port.group_start("c", 1, "g", 2, [Member(1, 5), Member(2, 0xABCDEF)])
    assert (caught.value.errno, caught.value.attribute) == (errno.EPROTO, "incarnation")


@pytest.mark.parametrize("capped", [True, False])
def test_a_missing_attribute_is_named(far: FakeKernel, port: KernelSwitch, capped: bool) -> None:
    event = next(a.value for a in _spec.ATTRIBUTE_SETS["vcs"] if a.name == "event")
    far.handler = lambda request, seq: [
        refusal(seq, request, errno.EINVAL, (5, struct.pack("=I", event)), capped=capped)
    ]
    with pytest.raises(SwitchError, match="attribute missing") as caught:
        port.cluster_del("c")
    assert caught.value.attribute == "event"


def test_a_refusal_without_words_has_those_of_its_errno(far: FakeKernel, port: KernelSwitch) -> None:
    far.handler = lambda request, seq: [refusal(seq, request, errno.ESTALE)]
    with pytest.raises(SwitchError) as caught:
        port.cluster_del("c")
    assert (caught.value.errno, caught.value.attribute) == (errno.ESTALE, "")
    assert "tale" in str(caught.value)


def test_answers_to_earlier_requests_are_passed_over(far: FakeKernel, port: KernelSwitch) -> None:
    info = {"api-version": 1, "capabilities": 0, "incarnation": 5}
    far.handler = lambda request, seq: [
        refusal(seq - 1, request, errno.EPERM) + answer("info-get", info | {"incarnation": 4}, seq - 1),
        answer("info-get", info, seq), ack(seq, request),
    ]
    assert port.info().incarnation == 5


def test_silence_is_an_error(far: FakeKernel) -> None:
    port = KernelSwitch(timeout_s=0.05)
    far.handler = lambda request, seq: []
    with pytest.raises(SwitchError) as caught:
        port.info()
    assert caught.value.errno == errno.ETIMEDOUT
    port.close()


@pytest.mark.parametrize("broken", [
    b"", b"\1", HEADER.pack(8, FAMILY, 0, 0, 0), HEADER.pack(400, FAMILY, 0, 0, 0), b"\xff" * 40,
], ids=["empty", "one byte", "too short", "too long", "noise"])
def test_broken_answers_are_refused(far: FakeKernel, port: KernelSwitch, broken: bytes) -> None:
    far.handler = lambda request, seq: [broken, message(NLMSG_ERROR, b"", seq)]
    with pytest.raises(SwitchError) as caught:
        port.info()
    assert caught.value.errno == errno.EPROTO


def test_an_answer_without_what_was_asked_is_refused(far: FakeKernel, port: KernelSwitch) -> None:
    replies(far, "info-get", {"api-version": 1})
    with pytest.raises(SwitchError, match="capabilities"):
        port.info()
    far.handler = lambda request, seq: [ack(seq, request)]
    with pytest.raises(SwitchError):
        port.view_set("c", 1, RingId(1, 1), True, [Member(1, 1)])


# --- hints ------------------------------------------------------------------------------------------------------


class HintEnd:
    """A socket that gives what the test says, then nothing."""

    def __init__(self, *items: bytes | OSError) -> None:
        self._items = list(items)

    def setblocking(self, flag: bool) -> None: ...
    def setsockopt(self, *args: object) -> None: ...
    def close(self) -> None: ...

    def fileno(self) -> int:
        return 77

    def recv(self, size: int) -> bytes:
        if not self._items:
            raise BlockingIOError
        item = self._items.pop(0)
        if isinstance(item, OSError):
            raise item
        return item


def hinted(
    monkeypatch: pytest.MonkeyPatch, port: KernelSwitch, *items: bytes | OSError
) -> list[list[Hint]]:
    """What hints() gives, call by call, until it gives nothing."""
    end = HintEnd(*items)
    monkeypatch.setattr(genl, "open_socket", lambda: end)
    assert port.hints_fd() == 77
    calls = []
    while hints := port.hints():
        calls.append(hints)
    return calls


GROUP_HINT = {"handle": "c", "group": "g", "generation": 4, "event": 5, "phase": 1}


def test_hints(monkeypatch: pytest.MonkeyPatch, port: KernelSwitch) -> None:
    two = answer("view-hint", {"handle": "c", "generation": 3}, 0) + answer("group-hint", GROUP_HINT, 0)
    calls = hinted(monkeypatch, port, two, answer("provider-hint", {"handle": "c", "provider-state": 1}, 0))
    assert calls == [[Hint("view", "c", "", 3), Hint("group", "c", "g", 4), Hint("provider", "c")]]


def test_an_overrun_is_a_lost_hint_and_the_rest_comes_after_it(
    monkeypatch: pytest.MonkeyPatch, port: KernelSwitch
) -> None:
    group = answer("group-hint", GROUP_HINT, 0)
    calls = hinted(monkeypatch, port, group, OSError(errno.ENOBUFS, "No buffer space"), group)
    assert calls == [[Hint("group", "c", "g", 4), Hint("lost")], [Hint("group", "c", "g", 4)]]


def test_a_hint_that_cannot_be_read_is_a_lost_one(monkeypatch: pytest.MonkeyPatch, port: KernelSwitch) -> None:
    broken = message(FAMILY, GENL.pack(_spec.COMMANDS["group-hint"], 1, 0) + b"\3\0", 0)
    assert hinted(monkeypatch, port, b"\1\2\3", broken) == [[Hint("lost")], [Hint("lost")]]
    assert hint_of("something-newer", {}) == Hint("lost")


# --- the module and the library ---------------------------------------------------------------------------------


def test_without_the_module_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, far: FakeKernel) -> None:
    monkeypatch.setattr(
        sys.modules[__name__], "family_answer",
        lambda seq: refusal(seq, b"\0" * 20, errno.ENOENT),
    )
    with pytest.raises(SwitchError, match="the vcs module is not loaded; modprobe vcs") as caught:
        KernelSwitch()
    assert caught.value.errno == errno.ENOENT


def test_the_import_stays_small() -> None:
    """Only the codec of pyroute2 is loaded, and only when it is needed; its sockets and event loops never."""
    code = """
import sys
import vcs.netlink
assert not [m for m in sys.modules if m.startswith("pyroute2")], "imported early"
vcs.netlink.codec()
print(*sorted(m for m in sys.modules if m.startswith("pyroute2")))
print("asyncio" in sys.modules)
import pyroute2
assert pyroute2.IPRoute
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pyroute2.common", "pyroute2.netlink", "pyroute2.netlink.exceptions", "False"]
