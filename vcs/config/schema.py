# SPDX-License-Identifier: GPL-2.0-only
"""What may stand in cluster.toml, as data: the one definition behind validation, the table in docs/man and completion.

Defaults are not repeated here: they are those of the classes in vcs/config/model.py, found by name (tests/unit/config compares both).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from enum import Enum

from vcs.config.model import (
    ClusterConfig,
    DlmConfig,
    FenceDevice,
    FenceMethod,
    FencingConfig,
    GroupsConfig,
    LeaseConfig,
    LockspaceConfig,
    MetricsConfig,
    NodeConfig,
    QuorumConfig,
    RestartConfig,
    TotemConfig,
    WatchdogConfig,
    WitnessConfig,
)
from vcs.model import NODEID_MAX

CLUSTER_NAME_MAX = 32
"mkfs.gfs2 accepts no longer cluster part in a lock table."
ADDRESSES_MAX = 3
"The kernel DLM's limit (DLM_MAX_ADDR_COUNT)."
HOUR_MS = 3_600_000
LOCKSPACE_NAME_MAX = 60
"With the prefix `dlm:` it must fit into a group's name."
WEIGHT_MAX = 1000


class Kind(Enum):
    STRING = "string"
    INT = "integer"
    BOOL = "boolean"
    STRINGS = "list of strings"
    OPTIONS = "table of options"
    WEIGHTS = "table of weights"
    DEVICE_OPTIONS = "table of options, or of such tables"
    TABLE = "table"
    TABLES = "list of tables"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section."""

    name: str
    kind: Kind
    doc: str
    low: int = 0
    "Smallest integer, or shortest string."
    high: int = 0
    "Largest integer, or longest string (0: no limit)."
    choices: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    pattern_text: str = ""
    "What ``pattern`` asks for, in words."
    required: bool = False
    field: str | None = ""
    "Name of the model's field; empty: the same as ``name``; None: the loader folds it into another field."


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    doc: str
    model: type
    keys: tuple[Key, ...]
    array: bool = False
    "True for ``[[name]]``."
    foreign: tuple[tuple[str, str], ...] = ()
    "Keys that people bring from other stacks: (name, why it is refused and what to do instead)."

    def key(self, name: str) -> Key | None:
        return next((k for k in self.keys if k.name == name), None)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAME_TEXT = "letters, digits, '.', '_' and '-', beginning with a letter or digit"


def _ms(name: str, low: int, high: int, doc: str) -> Key:
    return Key(name, Kind.INT, doc + " (ms)", low=low, high=high)


SECTIONS: tuple[Section, ...] = (
    Section("cluster", "The cluster itself.", ClusterConfig, (
        Key("name", Kind.STRING, "Name of the cluster: the part before the colon in a file system's lock table.",
            low=1, high=CLUSTER_NAME_MAX, pattern=_NAME, pattern_text=_NAME_TEXT, required=True),
        Key("key_file", Kind.STRING, "File with the shared key, made by `vcs keygen`; relative to cluster.toml. Each further line is "
            "a key that is accepted too (see Key rotation).", low=1),
        Key("engine", Kind.STRING, "Membership engine.", low=1),
    )),
    Section("node", "One per node, at least one.", NodeConfig, (
        Key("id", Kind.INT, "Node id.", low=1, high=NODEID_MAX, required=True),
        Key("name", Kind.STRING, "Name of the node: the host name by which vcsd finds which node it is.",
            low=1, high=64, pattern=_NAME, pattern_text=_NAME_TEXT, required=True),
        Key("address", Kind.STRING, "IPv4 or IPv6 address (a literal); a short form of `addresses`.", low=1, field=None),
        Key("addresses", Kind.STRINGS, "Addresses, one on each network (link), in the same order on all nodes. The lock manager uses all "
            "over SCTP, the first over TCP.",
            low=1, high=ADDRESSES_MAX),
        Key("votes", Kind.INT, "Votes of the node.", low=0, high=255),
        Key("fence", Kind.OPTIONS, "Options for the fence agents that concern this node, for example `plug`."),
        Key("method", Kind.TABLES, "Ways to fence this node, best first (see Fencing); without any, the agent of `[fencing]`.",
            field="methods"),
    ), array=True),
    Section("node.method", "One way to fence the node before it. It has succeeded when all of its devices have.", FenceMethod, (
        Key("devices", Kind.STRINGS, "Names of devices, or `self` alone: the node's own lease resets it.", low=1, high=16, required=True),
        Key("parallel", Kind.BOOL, "Switch them at the same time, not one after the other: for machines with two power supplies."),
        Key("options", Kind.DEVICE_OPTIONS, "Options for this node, on top of the devices' own: `plug = \"7\"` for all of them, "
            "`pdu-a.plug = \"3\"` for one."),
    ), array=True),
    Section("fence_device", "One per device that methods name.", FenceDevice, (
        Key("name", Kind.STRING, "How methods name it.", low=1, high=64, pattern=_NAME, pattern_text=_NAME_TEXT, required=True),
        Key("agent", Kind.STRING, "Fence agent: a name to be found in PATH, or an absolute path.", low=1, required=True),
        Key("options", Kind.OPTIONS, "Options for every call."),
        _ms("timeout_ms", 100, HOUR_MS, "A call that takes longer has failed"),
        Key("retries", Kind.INT, "How often a failed call is repeated at once, within one attempt.", low=0, high=100),
        _ms("delay_ms", 0, HOUR_MS, "Pause before the first call"),
        Key("action", Kind.STRING, "What is done to a failed node.", choices=("off", "reboot")),
        Key("unfence", Kind.STRING, "Whether a node that joins opens its own way to the storage (action `on`); `auto`: as the agent says "
            "of itself.", choices=("auto", "on", "off")),
    ), array=True),
    Section("totem", "Timing of the embedded engine.", TotemConfig, (
        Key("port", Kind.INT, "UDP port.", low=1, high=65535),
        Key("multicast", Kind.STRINGS, "A multicast group for each link; without it a frame for all is sent to each node.",
            low=1, high=ADDRESSES_MAX),
        _ms("token_ms", 50, 60_000, "No token for so long: somebody failed; a fallback, for detect_ms tells who"),
        _ms("consensus_ms", 20, 60_000, "A node that answers and does not agree for so long is left behind; a fallback"),
        _ms("join_ms", 5, 10_000, "Resend of an unanswered Join"),
        _ms("token_retransmit_ms", 5, 60_000, "Resend of a token that nobody passed on"),
        _ms("detect_ms", 20, 60_000, "Silence of a member, with three unanswered asks, after which the others go on without it"),
        _ms("hold_ms", 1, 10_000, "An idle ring's token rests so long at the representative"),
        _ms("merge_ms", 10, 60_000, "How often a ring announces itself to nodes outside"),
    )),
    Section("quorum", "When the cluster may act.", QuorumConfig, (
        Key("wait_for_all", Kind.BOOL, "A cold start waits until all nodes were seen together once."),
        Key("expected_votes", Kind.INT, "All votes there are; 0: the sum of the nodes' votes.", low=0, high=65535),
        Key("two_node", Kind.BOOL, "Of two nodes one is enough, and the fence decides which. Needs a fence agent; implies wait_for_all."),
        _ms("fence_delay_ms", 0, HOUR_MS, "With two_node: how long one of the two waits before it fences, so that the other one wins"),
        Key("fence_delay_node", Kind.INT, "Id of the node that waits; 0: the one with the higher id.", low=0, high=NODEID_MAX),
        Key("last_man_standing", Kind.BOOL, "A failed node loses its vote when it is known to be dead: few can go on after many have "
            "failed one after the other. It is fenced for that, if need be. Needs wait_for_all."),
        _ms("last_man_standing_window_ms", 0, HOUR_MS, "How long a node must have been missing for that"),
        Key("auto_tie_breaker", Kind.BOOL, "Exactly half of the votes are enough, with the tie-breaker node among them."),
        Key("auto_tie_breaker_node", Kind.STRING, "Who breaks the tie: `lowest` or `highest` id of those with a vote, or ids in order of "
            "preference, as in `\"3 1\"`.", low=1, pattern=re.compile(r"lowest|highest|[1-9][0-9]*( [1-9][0-9]*)*"),
            pattern_text="lowest, highest, or node ids with a space between them"),
        Key("witness", Kind.TABLE, "A machine outside that decides between two halves: `[quorum.witness]`."),
    )),
    Section("quorum.witness", "`vcs witness` on a machine outside of the cluster lets exactly half of the votes go on, one half at a "
            "time (see Witness). All nodes and the witness must have it alike.", WitnessConfig, (
        Key("address", Kind.STRING, "Address (an IPv4 or IPv6 literal) of the witness.", low=1, required=True),
        Key("port", Kind.INT, "UDP port.", low=1, high=65535),
        _ms("timeout_ms", 500, 600_000, "For so long a grant holds without being renewed; half of the nodes stop so long after they have "
            "lost the witness"),
    )),
    Section("groups", "How long the others wait for a consumer that does not answer. Past it a node is failed and fenced if the group "
            "asks for fencing; if not, the node is put out of the group.", GroupsConfig, (
        _ms("stop_limit_ms", 100, HOUR_MS, "For the answer to a stop"),
        _ms("start_limit_ms", 100, HOUR_MS, "For the answer to a start: recovery"),
        _ms("takeover_limit_ms", 100, HOUR_MS, "For the next owner of a persistent group whose owner has gone"),
    )),
    Section("fencing", "How a failed node is made sure to write no more.", FencingConfig, (
        Key("agent", Kind.STRING, "Fence agent: a name to be found in PATH, or an absolute path; empty: self-fencing or `vcs fence ack`."),
        Key("options", Kind.OPTIONS, "Options for every call; a node's own `fence` options come on top."),
        _ms("timeout_ms", 100, HOUR_MS, "A call that takes longer has failed"),
        _ms("retry_ms", 10, HOUR_MS, "Pause before a method is tried again, doubled each time"),
        _ms("retry_max_ms", 10, HOUR_MS, "Longest pause"),
        _ms("boot_ms", 10, HOUR_MS, "A node that was cut off and has power again at once may be booting: for so long it is not cut off "
            "again with the same method, and its new boot ends the fence"),
        _ms("return_ms", 0, HOUR_MS, "When a quorum is back after there was none (a switch has booted), nodes that are still missing have "
            "so long to come back, too, before they are fenced. A node that fails while the others are quorate is fenced at once"),
        Key("tries", Kind.INT, "So many failed attempts with one method, each by another node; then comes the next method, and round "
            "again.", low=1, high=100),
        Key("check_interval_s", Kind.INT, "How often every node asks every device whether it answers (s); 0: never.", low=0, high=86400),
        Key("standby", Kind.BOOL, "Agents are started before they are needed and wait for what they are told, which spares a fence their "
            "start; two processes for each agent of a first method."),
    )),
    Section("lease", "The kernel's proof of quorum.", LeaseConfig, (
        _ms("lease_ms", 500, 600_000, "For so long one proof of quorum counts; without the next, nothing that needs fencing starts"),
        Key("self_fencing", Kind.STRING, "Whether a node whose lease has run out resets itself, so that the others may count it as "
            "fenced without a device (see Self-fencing). `auto`: with three nodes and more, or a witness, and no fence agent.",
            choices=("auto", "on", "off")),
        _ms("grace_ms", 100, 600_000, "With self-fencing: from the end of the lease, when groups are lost, to the reset"),
        _ms("margin_ms", 500, 600_000, "With self-fencing: what the others wait on top of lease_ms + the longer of grace_ms and the "
            "watchdog's timeout_ms"),
    )),
    Section("watchdog", "The hardware watchdog, as a second line behind the lease.", WatchdogConfig, (
        Key("device", Kind.STRING, "Path of the device, for example `/dev/watchdog0`; empty: none is held."),
        _ms("timeout_ms", 1000, 600_000, "Without a ping for so long it resets the machine; whole seconds, rounded up"),
    )),
    Section("restart", "A vcsd that is away while its machine and its groups live on.", RestartConfig, (
        _ms("planned_ms", 1000, 600_000, "So long it may be away when it was stopped over live groups, for a restart or an upgrade; "
            "after a crash it is lease_ms. Then the node has failed and is fenced"),
        Key("crashes", Kind.INT, "So many deaths of one node's vcsd, without a quiet time between them, and it is taken for a failed "
            "node at once. 1: always.", low=1, high=1000),
        Key("window_s", Kind.INT, "The quiet time (s).", low=1, high=86400),
    )),
    Section("dlm", "The kernel's lock manager.", DlmConfig, (
        Key("port", Kind.INT, "TCP or SCTP port.", low=1, high=65535),
        Key("protocol", Kind.STRING, "Transport.", choices=("tcp", "sctp")),
        Key("log_debug", Kind.BOOL, "The kernel's lock manager tells everything it does (`dmesg`)."),
        Key("lockspace", Kind.TABLES, "Lockspaces that are not to be run by the defaults: `[[dlm.lockspace]]`.", field="lockspaces"),
    )),
    Section("dlm.lockspace", "A lockspace that is not run by the defaults. All nodes must have it alike.", LockspaceConfig, (
        Key("name", Kind.STRING, "Name of the lockspace: of GFS2, the part after the colon in its lock table.",
            low=1, high=LOCKSPACE_NAME_MAX, required=True),
        Key("nodir", Kind.BOOL, "No resource directory: the master of a lock is found by a hash of its name."),
        Key("weights", Kind.WEIGHTS, "Shares of the directory, or with `nodir` of the masters, by name or id of nodes: nodes that are left "
            "out get none. Without it everybody has 1."),
    ), array=True),
    Section("metrics", "Prometheus.", MetricsConfig, (
        Key("listen", Kind.STRING, "Where vcsd answers a scraper, for example `127.0.0.1:9464`; anybody who can reach it can read it. "
            "Empty: nowhere, only `vcs metrics` on the node."),
    )),
)


def section(name: str) -> Section:
    return next(s for s in SECTIONS if s.name == name)


def default_of(sec: Section, key: Key) -> object:
    """Default of a key, or None when there is none (a required key, or one that another key stands for)."""
    if key.field is None:
        return None
    field = next(f for f in fields(sec.model) if f.name == (key.field or key.name))
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None


def paths() -> Iterator[str]:
    """Every key that holds a value of its own, as ``section.key``, for completion."""
    for sec in SECTIONS:
        yield from (f"{sec.name}.{key.name}" for key in sec.keys if key.field is not None)


def _range_text(key: Key) -> str:
    if key.choices:
        return ", ".join(f"`{c}`" for c in key.choices)
    if key.kind is Kind.INT:
        return f"{key.low} to {key.high}"
    if key.kind is Kind.STRINGS:
        return f"{key.low} to {key.high} of them"
    if key.high:
        return f"at most {key.high} characters"
    return ""


def _default_text(sec: Section, key: Key) -> str:
    if key.required:
        return "*required*"
    value = default_of(sec, key)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{value}`" if value not in ("", {}, ()) else "empty"


def reference() -> str:
    """The table of all keys, in Markdown: docs/man/cluster.toml.5.md holds it between two markers."""
    out: list[str] = []
    for sec in SECTIONS:
        out += [f"### {'[[' if sec.array else '['}{sec.name}{']]' if sec.array else ']'}", "", sec.doc, ""]
        out += ["| key | type | default | range | meaning |", "|---|---|---|---|---|"]
        out += [
            f"| `{k.name}` | {k.kind.value} | {_default_text(sec, k)} | {_range_text(k)} | {k.doc} |" for k in sec.keys
        ]
        out.append("")
    return "\n".join(out).rstrip() + "\n"


BEGIN, END = "<!-- begin: vcs/config/schema.py -->\n", "<!-- end -->"


def _update_manual(path: str) -> None:
    """Put the table between the two markers of the manual (`make man-table`)."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    before, _, rest = text.partition(BEGIN)
    _old, _, after = rest.partition(END)
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + reference() + END + after)


if __name__ == "__main__":
    import sys

    _update_manual(sys.argv[1])
