# SPDX-License-Identifier: GPL-2.0-only
"""Bytes of an answer -> attributes -> the values of the ports. Pure; what is malformed or missing is EPROTO."""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from bridge.switch import ClusterInfo, Hint
from vcs import _spec
from vcs.errors import SwitchError
from vcs.genl import ATTRIBUTE, align, attributes
from vcs.model import Group, GroupFlags, GroupState, Level, Member, Phase, ProviderState, RingId, View

HINT_KINDS = {"cluster-hint": "cluster", "view-hint": "view", "group-hint": "group", "provider-hint": "provider"}

EnumType = TypeVar("EnumType", Level, GroupState, Phase, ProviderState)
Attributes = Mapping[str, Any]
"Decoded attributes: int, str or bytes by name; a list of Attributes for a repeated nest."


NUMBERS = {"u32": struct.Struct("=HHI"), "u64": struct.Struct("=HHQ")}
"Layout of an attribute that is a number: length, type, value."
NLA_F_NESTED = 0x8000
BY_NAME = {name: {a.name: a for a in table} for name, table in _spec.ATTRIBUTE_SETS.items()}
BY_NUMBER = {name: {a.value: a for a in table} for name, table in _spec.ATTRIBUTE_SETS.items()}


def pack(values: Attributes, attribute_set: str = "vcs") -> bytes:
    """The attributes of a request or of a nest; a list is a repeated nest. Raises KeyError, struct.error, or UnicodeError for what no
    attribute is."""
    table, parts = BY_NAME[attribute_set], []
    for name, value in values.items():
        attr = table[name]
        if attr.type in NUMBERS:
            layout = NUMBERS[attr.type]
            parts.append(layout.pack(layout.size, attr.value, value))
        elif attr.type == "nest":
            parts += [_padded(attr.value | NLA_F_NESTED, pack(nest, attr.nested)) for nest in value]
        elif attr.type == "string":
            parts.append(_padded(attr.value, value.encode("utf-8", "surrogateescape") + b"\0"))
        else:
            parts.append(_padded(attr.value, value))
    return b"".join(parts)


def _padded(kind: int, payload: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def unpack(data: memoryview, offset: int = 0, attribute_set: str = "vcs") -> dict[str, Any]:
    """The attributes of ``data`` from ``offset`` on. Those that the tables do not know (a newer kernel's) are left
    out; one of a wrong size, or bytes that are no attribute, make it EPROTO."""
    table = BY_NUMBER[attribute_set]
    values: dict[str, Any] = {}
    end = offset
    for at, kind, payload in attributes(data, offset):
        end = align(at + ATTRIBUTE.size + len(payload))
        attr = table.get(kind)
        if attr is None or attr.type == "pad":
            continue
        if attr.type == "nest":
            values.setdefault(attr.name, []).append(unpack(payload, 0, attr.nested))
        else:
            values[attr.name] = scalar(attr, payload)
    if end < len(data):
        raise SwitchError(errno.EPROTO, f"the kernel's message has {len(data) - end} bytes that are no attribute")
    return values


def scalar(attr: _spec.Attr, payload: memoryview) -> int | str | bytes:
    raw = bytes(payload)
    if attr.type == "binary":
        return raw
    if attr.type == "string" and raw.endswith(b"\0"):
        # Not always UTF-8: one odd name must not hide all others.
        return raw[:-1].decode("utf-8", "surrogateescape")
    if attr.type in NUMBERS and len(raw) == NUMBERS[attr.type].size - ATTRIBUTE.size:
        return int.from_bytes(raw, sys.byteorder)
    raise SwitchError(errno.EPROTO, f"the kernel's {attr.name} has {len(raw)} bytes", attr.name)


def number(a: Attributes, name: str) -> int:
    value = a.get(name)
    if not isinstance(value, int):
        raise SwitchError(errno.EPROTO, f"the kernel's answer has no {name}", name)
    return value


def text(a: Attributes, name: str) -> str:
    value = a.get(name)
    if not isinstance(value, str):
        raise SwitchError(errno.EPROTO, f"the kernel's answer has no {name}", name)
    return value


def member_list(members: Sequence[Member]) -> list[dict[str, int]]:
    return [
        {"nodeid": m.nodeid, "votes": m.votes, "incarnation": m.incarnation, "join-id": m.join_id} for m in members
    ]


def members_of(parts: Iterable[Attributes], name: str, expected: int) -> tuple[Member, ...]:
    """The members of all parts of a list; EPROTO unless they are as many as the head says."""
    members = tuple(
        Member(number(m, "nodeid"), number(m, "incarnation"), m.get("votes", 1), m.get("join-id", 0))
        for part in parts
        for m in part.get(name, ())
    )
    if len(members) != expected:
        raise SwitchError(errno.EPROTO, f"the kernel gave {len(members)} of {expected} members", name)
    return members


def cluster_info(a: Attributes) -> ClusterInfo:
    return ClusterInfo(
        handle=text(a, "handle"), name=text(a, "name"), nodeid=number(a, "nodeid"),
        provider=a.get("provider", ""), provider_state=enum(ProviderState, a, "provider-state"),
        change_seq=number(a, "change-seq"), lease_ms=a.get("lease-ms", 0),
        lease_remaining_ms=a.get("lease-remaining-ms", 0), grace_ms=a.get("grace-ms", 0),
    )


def view_of(parts: Sequence[Attributes]) -> View:
    if not parts:
        raise SwitchError(errno.EPROTO, "the kernel gave no view")
    head = parts[0]
    generation = number(head, "generation")
    if any(p.get("generation") != generation for p in parts):
        raise SwitchError(errno.EPROTO, "the kernel mixed two views in one answer", "generation")
    quorate = bool(head.get("view-flags", 0) & _spec.ENUMS["view-flags"]["quorate"])
    members = members_of(parts, "member", number(head, "nr-members"))
    return View(generation, RingId(head.get("ring-seq", 0), head.get("ring-rep", 0)), quorate, members)


def groups_of(parts: Sequence[Attributes]) -> list[Group]:
    """Groups from the messages of a dump; a long one goes on over several messages with the same head."""
    by_name: dict[str, list[Attributes]] = {}
    for part in parts:
        by_name.setdefault(text(part, "group"), []).append(part)
    return [
        replace(
            group_head(same[0]),
            members=members_of(same, "member", number(same[0], "nr-members")),
            finished_members=members_of(same, "finished-member", number(same[0], "nr-finished-members")),
            started_members=started_members(same),
        )
        for same in by_name.values()
    ]


def started_members(parts: Sequence[Attributes]) -> tuple[Member, ...]:
    """An older module does not tell them. Then any event counts as a start, and the last finished one has its members: too many are
    held for dangerous, never too few."""
    if "nr-started-members" in parts[0]:
        return members_of(parts, "started-member", number(parts[0], "nr-started-members"))
    return members_of(parts, "finished-member", number(parts[0], "nr-finished-members"))


def group_head(a: Attributes) -> Group:
    return Group(
        name=text(a, "group"), level=enum(Level, a, "level"), flags=GroupFlags(number(a, "group-flags")),
        state=enum(GroupState, a, "group-state"), event=number(a, "event"), phase=enum(Phase, a, "phase"),
        acked_event=number(a, "acked-event"), acked_phase=enum(Phase, a, "acked-phase"), members=(),
        finished_event=number(a, "finished-event"), finished_members=(),
        view_generation=number(a, "generation"), owner=a.get("owner", ""),
        owner_epoch=number(a, "owner-epoch"), orphan_since_ms=a.get("orphan-since-ms", 0),
        started_event=a.get("started-event", number(a, "event")),
    )


def enum(kind: type[EnumType], a: Attributes, name: str) -> EnumType:
    try:
        return kind(number(a, name))
    except ValueError:
        raise SwitchError(errno.EPROTO, f"the kernel's answer has an unknown {name}", name) from None


def hint_of(command: str, a: Attributes) -> Hint:
    what, handle = HINT_KINDS.get(command), a.get("handle")
    if what is None or not isinstance(handle, str):
        # A newer module tells of something that we do not know: read everything again, that is always right.
        return Hint("lost")
    return Hint(what, handle, a.get("group", ""), a.get("generation", 0))
