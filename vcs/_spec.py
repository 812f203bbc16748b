# SPDX-License-Identifier: GPL-2.0-only
"""Tables of the netlink family, made from kmod/spec/vcs.yaml by `make gen`; do not edit."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Final, NamedTuple


class Attr(NamedTuple):
    """One attribute. ``type``: u32, u64, string (NUL-terminated), binary, nest, pad."""

    name: str
    value: int
    type: str
    nested: str = ""
    "Name of the attribute set in a nest."
    multi: bool = False
    "Repeated at the level it stands on."
    enum: str = ""


class Op(NamedTuple):
    """One command: attributes of its requests and answers; None where it has no such form."""

    name: str
    value: int
    do: tuple[str, ...] | None
    do_reply: tuple[str, ...] | None
    dump: tuple[str, ...] | None
    dump_reply: tuple[str, ...] | None
    event: tuple[str, ...] | None


FAMILY: Final = "vcs"
VERSION: Final = 1
API_VERSION: Final = 1
NAME_MAX: Final = 64
MEMBERS_MAX: Final = 1024
CLAIM_DATA_MAX: Final = 4096
HEARTBEAT_NODES_MAX: Final = 64
MCAST_GROUPS: Final[tuple[str, ...]] = ("hints",)

ENUMS: Final[dict[str, dict[str, int]]] = {
    "phase": {"none": 0, "stop": 1, "start": 2, "finish": 3},
    "level": {"fencing": 1, "lock-manager": 2, "file-system": 3, "user": 4},
    "group-flags": {"persistent": 1, "needs-fence": 2},
    "group-state": {"joining": 1, "member": 2, "leaving": 3, "lost": 4},
    "provider-state": {"none": 0, "attached": 1, "orphan": 2, "lost": 3},
    "lease-state": {"none": 0, "idle": 1, "armed": 2, "expired": 3, "reset": 4},
    "view-flags": {"quorate": 1},
    "capability": {"groups": 1, "fence": 2, "lease": 4, "reset": 8, "agreed": 16, "kernel": 32},
}

ATTRIBUTE_SETS: Final[dict[str, tuple[Attr, ...]]] = {
    "member": (
        Attr("pad", 1, "pad"),
        Attr("nodeid", 2, "u32"),
        Attr("votes", 3, "u32"),
        Attr("incarnation", 4, "u64"),
        Attr("join-id", 5, "u64"),
    ),
    "vcs": (
        Attr("pad", 1, "pad"),
        Attr("api-version", 2, "u32"),
        Attr("capabilities", 3, "u64", enum="capability"),
        Attr("incarnation", 4, "u64"),
        Attr("handle", 5, "string"),
        Attr("name", 6, "string"),
        Attr("nodeid", 7, "u32"),
        Attr("provider", 8, "string"),
        Attr("provider-state", 9, "u32", enum="provider-state"),
        Attr("session", 10, "u64"),
        Attr("change-seq", 11, "u64"),
        Attr("highest-event", 12, "u64"),
        Attr("lease-ms", 13, "u32"),
        Attr("lease-remaining-ms", 14, "u32"),
        Attr("lease-state", 15, "u32", enum="lease-state"),
        Attr("valid-from-ns", 16, "u64"),
        Attr("generation", 17, "u64"),
        Attr("ring-seq", 18, "u64"),
        Attr("ring-rep", 19, "u32"),
        Attr("view-flags", 20, "u32", enum="view-flags"),
        Attr("nr-members", 21, "u32"),
        Attr("member", 22, "nest", nested="member", multi=True),
        Attr("finished-member", 23, "nest", nested="member", multi=True),
        Attr("nr-finished-members", 24, "u32"),
        Attr("group", 25, "string"),
        Attr("level", 26, "u32", enum="level"),
        Attr("group-flags", 27, "u32", enum="group-flags"),
        Attr("group-state", 28, "u32", enum="group-state"),
        Attr("event", 29, "u64"),
        Attr("phase", 30, "u32", enum="phase"),
        Attr("acked-event", 31, "u64"),
        Attr("acked-phase", 32, "u32", enum="phase"),
        Attr("finished-event", 33, "u64"),
        Attr("owner", 34, "string"),
        Attr("owner-epoch", 35, "u32"),
        Attr("orphan-since-ms", 36, "u64"),
        Attr("age-ms", 37, "u64"),
        Attr("taken-over", 38, "u32"),
        Attr("error", 39, "u32"),
        Attr("claim", 40, "string"),
        Attr("claim-data", 41, "binary"),
        Attr("stale-acks", 42, "u64"),
        Attr("grace-ms", 43, "u32"),
        Attr("freeze-until-ns", 44, "u64"),
        Attr("started-event", 45, "u64"),
        Attr("started-member", 46, "nest", nested="member", multi=True),
        Attr("nr-started-members", 47, "u32"),
        Attr("config", 48, "nest", nested="heartbeat"),
    ),
    "heartbeat": (
        Attr("key", 1, "binary"),
        Attr("interval-ms", 2, "u32"),
        Attr("node", 3, "nest", nested="heartbeat-node", multi=True),
    ),
    "heartbeat-node": (
        Attr("nodeid", 1, "u32"),
        Attr("address", 2, "binary"),
        Attr("port", 3, "u32"),
    ),
}

OPS: Final[tuple[Op, ...]] = (
    Op("info-get", 1, do=(), do_reply=("api-version", "capabilities", "incarnation"), dump=None, dump_reply=None, event=None),
    Op("cluster-add", 2, do=("handle", "name", "nodeid"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("cluster-del", 3, do=("handle",), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("cluster-get", 4, do=("handle",), do_reply=("handle", "name", "nodeid", "provider", "provider-state", "change-seq", "highest-event", "generation", "lease-ms", "lease-remaining-ms", "lease-state", "grace-ms", "stale-acks"), dump=(), dump_reply=("handle", "name", "nodeid", "provider", "provider-state", "change-seq", "highest-event", "generation", "lease-ms", "lease-remaining-ms", "lease-state", "grace-ms", "stale-acks"), event=None),
    Op("provider-attach", 5, do=("handle", "provider", "lease-ms", "grace-ms", "config"), do_reply=("session", "incarnation", "highest-event", "generation"), dump=None, dump_reply=None, event=None),
    Op("provider-detach", 6, do=("handle", "session"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("lease-renew", 7, do=("handle", "session", "valid-from-ns"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("view-set", 8, do=("handle", "session", "ring-seq", "ring-rep", "view-flags", "member"), do_reply=("generation",), dump=None, dump_reply=None, event=None),
    Op("view-get", 9, do=None, do_reply=None, dump=("handle",), dump_reply=("handle", "generation", "ring-seq", "ring-rep", "view-flags", "nr-members", "member"), event=None),
    Op("group-get", 10, do=None, do_reply=None, dump=("handle", "group"), dump_reply=("handle", "group", "level", "group-flags", "group-state", "event", "phase", "acked-event", "acked-phase", "finished-event", "generation", "owner", "owner-epoch", "orphan-since-ms", "age-ms", "started-event", "nr-members", "nr-finished-members", "nr-started-members", "member", "finished-member", "started-member"), event=None),
    Op("group-stop", 11, do=("handle", "session", "group", "event"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("group-start", 12, do=("handle", "session", "group", "event", "member"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("group-finish", 13, do=("handle", "session", "group", "event"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("group-left", 14, do=("handle", "session", "group", "error"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("fenced", 15, do=("handle", "session", "nodeid", "incarnation", "error"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("group-join", 16, do=("handle", "group", "level", "group-flags", "owner"), do_reply=("session", "owner-epoch", "taken-over"), dump=None, dump_reply=None, event=None),
    Op("group-ack", 17, do=("handle", "session", "group", "event", "phase"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("group-leave", 18, do=("handle", "session", "group"), do_reply=(), dump=None, dump_reply=None, event=None),
    Op("claim", 19, do=("claim", "claim-data"), do_reply=("claim", "claim-data"), dump=None, dump_reply=None, event=None),
    Op("cluster-hint", 20, do=None, do_reply=None, dump=None, dump_reply=None, event=("handle",)),
    Op("view-hint", 21, do=None, do_reply=None, dump=None, dump_reply=None, event=("handle", "generation")),
    Op("group-hint", 22, do=None, do_reply=None, dump=None, dump_reply=None, event=("handle", "group", "generation", "event", "phase")),
    Op("provider-hint", 23, do=None, do_reply=None, dump=None, dump_reply=None, event=("handle", "provider-state")),
    Op("lease-freeze", 24, do=("handle", "session", "freeze-until-ns"), do_reply=(), dump=None, dump_reply=None, event=None),
)
OPTIONAL: Final[frozenset[str]] = frozenset(("claim-data", "config", "error", "grace-ms", "group-flags", "join-id", "lease-ms", "level", "member", "owner", "provider", "view-flags", "votes"))
"What a request may lack."
OPTIONAL_IN: Final[frozenset[tuple[str, str]]] = frozenset((("provider-detach", "session"),))
"(command, attribute): what it may lack there."
COMMANDS: Final[dict[str, int]] = {op.name: op.value for op in OPS}
