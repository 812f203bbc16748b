# SPDX-License-Identifier: GPL-2.0-only
"""dlm_controld's answers, made from dlm_glue's state, its history and the coordinator's picture. Pure.

The coordinator's picture (``vcs/control.py``, Describe) is what says why a change waits; when vcsd does not answer there is none, and what
is left is what the switch and the kernel show. What the answers mean in our terms is in docs/dlm.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlm_glue.controld_history import History, LsHistory, LsNode, NodeTimes, Now, Seq
from dlm_glue.controld_wire import Change, Lockspace, LockspaceFlag, Node, NodeFlag, NodesOption, Reason, StateType, Wait, pack_state
from dlm_glue.state import GROUP_PREFIX, OFFLINE, ONLINE, Run, Space, State, global_id
from vcs.model import Phase

Picture = Mapping[str, Any]
ENOENT = 2
FORMING = ("start", "collect", "snapshot")
"Modes of the coordinator in which a configuration is still being formed or merged."
NO_QUORUM = ("inquorate", "waiting")


@dataclass(frozen=True, slots=True)
class Sight:
    """All that an answer is made from, at one moment."""

    state: State
    history: History
    now: Now
    picture: Picture | None = None
    need_plocks: frozenset[str] = frozenset()
    "Lockspaces whose POSIX locks have not arrived yet."


@dataclass(frozen=True, slots=True)
class _Waits:
    """The change in progress of one lockspace."""

    condition: int = 0
    messages: bool = False
    members: frozenset[int] = frozenset()
    ready: frozenset[int] = frozenset()
    "Members that have done their part of it (dlm_controld: whose start message came)."


def _groups(sight: Sight) -> dict[str, Picture]:
    return {str(g["name"]): g for g in (sight.picture or {}).get("groups", ())}


def _obligations(sight: Sight) -> Sequence[Picture]:
    return tuple((sight.picture or {}).get("obligations", ()))


def _owed(sight: Sight, name: str) -> frozenset[int]:
    """Nodes that must be fenced before lockspace ``name`` can start."""
    group = GROUP_PREFIX + name
    return frozenset(int(o["nodeid"]) for o in _obligations(sight) if o["everything"] or group in o["groups"])


def owed_to(sight: Sight) -> dict[int, int]:
    """Everybody who must be fenced -> who is doing it (0: nobody yet)."""
    return {int(o["nodeid"]): int(o["fencer"]) if o["phase"] == "launched" else 0 for o in _obligations(sight)}


# --- a lockspace ----------------------------------------------------------------------------------------------------------------------


def _waits(sight: Sight, space: Space, history: LsHistory) -> _Waits:
    group = sight.state.groups.get(space.name)
    view = sight.state.view
    if group is None or view is None or history.following is None:
        return _Waits()
    there = {m.nodeid for m in view.members}
    before = set(history.previous.members) if history.previous else set()
    row = _groups(sight).get(GROUP_PREFIX + space.name)
    if group.phase >= Phase.START:
        members = {m.nodeid for m in group.members}
    elif row is not None:
        members = ({int(m["nodeid"]) for m in row["members"]} | set(row["joining"])) & there
    else:
        members = before & there
    if row is not None:
        late = (members | set(row["leaving"])) - set(row["stopped"])
        ready = members & set(row["stopped"])
    else:
        me = sight.state.nodeid
        ready = members & {me} if group.stopped else set()
        late = members - ready
    condition = _condition(sight, space.name)
    if condition:
        return _Waits(condition, False, frozenset(members), frozenset(ready))
    return _Waits(len(late), True, frozenset(members), frozenset(ready))


def _condition(sight: Sight, name: str) -> Wait:
    """In dlm_controld's order: a settled ring, quorum, fencing; then messages."""
    picture, view = sight.picture, sight.state.view
    if view is not None and not view.quorate and (picture is None or picture["mode"] not in FORMING):
        return Wait.QUORUM
    if picture is None:
        # Nobody orders anything until vcsd is back.
        return Wait.RINGID
    if picture["mode"] in NO_QUORUM:
        return Wait.QUORUM
    if not picture["regular"] or picture["mode"] in FORMING:
        return Wait.RINGID
    return Wait.FENCING if _owed(sight, name) else Wait.NOTHING


def _flags(sight: Sight, space: Space) -> LockspaceFlag:
    flags = LockspaceFlag.NONE
    asked = {p.action for p in sight.state.pending if p.lockspace == space.name}
    if ONLINE in asked:
        flags |= LockspaceFlag.JOINING
    if OFFLINE in asked or space.leaving:
        flags |= LockspaceFlag.LEAVING
    if space.run not in (Run.RECOVERING, Run.RUNNING):
        flags |= LockspaceFlag.KERNEL_STOPPED
    if space.name in sight.need_plocks:
        flags |= LockspaceFlag.NEED_PLOCKS
    return flags


def _next(history: LsHistory, waits: _Waits) -> Change:
    following = history.following
    if following is None:
        return Change()
    old = history.previous.members if history.previous else {}
    gone = [n for n in old if n not in waits.members]
    failed = [n for n in gone if history.nodes.get(n, LsNode()).reason is Reason.NODEDOWN]
    return Change(
        member_count=len(waits.members),
        joined_count=len(waits.members - old.keys()),
        remove_count=len(gone),
        failed_count=len(failed),
        wait_condition=waits.condition,
        wait_messages=waits.messages,
        seq=following.seq,
        combined_seq=following.combined,
    )


def _previous(seq: Seq | None) -> Change:
    if seq is None:
        return Change()
    return Change(len(seq.members), seq.joined, seq.removed, seq.failed, 0, False, seq.seq, seq.combined)


def lockspaces(sight: Sight) -> list[Lockspace]:
    return [_lockspace(sight, space) for _, space in sorted(sight.state.spaces.items()) if space.present]


def lockspace(sight: Sight, name: str) -> Lockspace | None:
    space = sight.state.spaces.get(name)
    return _lockspace(sight, space) if space is not None and space.present else None


def _lockspace(sight: Sight, space: Space) -> Lockspace:
    history = sight.history.lockspaces.get(space.name) or LsHistory()
    following = _next(history, _waits(sight, space, history))
    return Lockspace(space.name, global_id(space.name), _flags(sight, space), _previous(history.previous), following)


def nodes(sight: Sight, name: str, option: int) -> list[Node] | None:
    """None: no such lockspace. An unknown option is an empty list."""
    space = sight.state.spaces.get(name)
    if space is None or not space.present:
        return None
    history = sight.history.lockspaces.get(name) or LsHistory()
    waits = _waits(sight, space, history)
    before = set(history.previous.members) if history.previous else set()
    chosen = {
        NodesOption.ALL: history.nodes.keys() | before | (waits.members if history.following else set()),
        NodesOption.MEMBERS: before,
        NodesOption.NEXT: waits.members if history.following else set(),
    }.get(NodesOption(option) if option in tuple(NodesOption) else NodesOption.ALL, set())
    if option not in tuple(NodesOption):
        return []
    return [_node(sight, name, n, history, waits) for n in sorted(chosen)]


def node(sight: Sight, name: str, nodeid: int) -> Node | None:
    """One node; one that was never there has nothing but its number. None: no such lockspace."""
    space = sight.state.spaces.get(name)
    if space is None or not space.present:
        return None
    history = sight.history.lockspaces.get(name) or LsHistory()
    return _node(sight, name, nodeid, history, _waits(sight, space, history))


def _node(sight: Sight, name: str, nodeid: int, history: LsHistory, waits: _Waits) -> Node:
    flags = NodeFlag.NONE
    if history.following is not None:
        if nodeid in waits.members:
            flags |= NodeFlag.MEMBER
        if nodeid in waits.ready:
            flags |= NodeFlag.START
    elif history.previous is not None and nodeid in history.previous.members:
        flags |= NodeFlag.MEMBER | NodeFlag.START
    times = sight.history.nodes.get(nodeid, NodeTimes())
    if nodeid in _owed(sight, name) and (NodeFlag.MEMBER not in flags):
        flags |= NodeFlag.NEED_FENCING
    known = history.nodes.get(nodeid, LsNode())
    return Node(
        nodeid,
        flags,
        known.added_seq,
        known.removed_seq,
        int(known.reason) if known.reason is Reason.NODEDOWN else 0,
        known.fail_wall or (times.fail_wall if NodeFlag.NEED_FENCING in flags else 0),
        known.fail_mono or (times.fail_mono if NodeFlag.NEED_FENCING in flags else 0),
    )


def fs_notified(sight: Sight, name: str, nodeid: int) -> int:
    """What set_fs_notified says when no file system daemon is waited for (it never is): a negative errno or 0."""
    space = sight.state.spaces.get(name)
    history = sight.history.lockspaces.get(name)
    if space is None or history is None or not space.present:
        return -ENOENT
    if nodeid not in history.nodes:
        return -3  # ESRCH
    return -11 if history.previous is not None and nodeid in history.previous.members else 0  # EAGAIN


# --- the daemon -----------------------------------------------------------------------------------------------------------------------


def status(sight: Sight) -> bytes:
    """All states of ``dlm_tool status``."""
    picture, view = sight.picture, sight.state.view
    members = {m.nodeid for m in view.members} if view else set()
    ring = view.ring.seq if view else 0
    unknown = picture is not None and picture["mode"] == "waiting"
    out = pack_state(
        StateType.DAEMON,
        sight.state.nodeid,
        {
            "member_count": len(members),
            "joined_count": sight.history.joined,
            "remove_count": sight.history.removed,
            "daemon_ringid": ring,
            # The engine's ring; dlm_tool reads 32 bits of each.
            "cluster_ringid": str(picture["ring"]).partition(".")[0] if picture else ring,
            "quorate": int(view.quorate) if view else 0,
            "fence_pid": 0,
            "fence_in_progress_unknown": int(unknown),
            "zombie_count": 0,
            "monotime": sight.now.monotonic,
            "stateful_merge_wait": int(picture is not None and picture["mode"] in ("collect", "snapshot")),
        },
    )
    rows = {int(n["nodeid"]): n for n in (picture or {}).get("nodes", ())}
    owed = {int(o["nodeid"]): o for o in _obligations(sight)}
    for nodeid in sorted(sight.history.nodes.keys() | owed.keys() | members):
        out += pack_state(StateType.DAEMON_NODE, nodeid, _node_values(sight, nodeid, rows.get(nodeid, {}), owed.get(nodeid), members))
    startup = [n for n, row in sorted(rows.items()) if unknown and row["status"] == "unseen" and not row["present"]]
    for nodeid in startup:
        out += pack_state(StateType.STARTUP_NODE, nodeid, {"member": 0, "left_reason": "startup", "need_fencing": 1})
    return out


def _node_values(sight: Sight, nodeid: int, row: Picture, owed: Picture | None, members: set[int]) -> dict[str, object]:
    times = sight.history.nodes.get(nodeid, NodeTimes())
    left = row.get("status") == "left" and owed is None
    launched = owed is not None and owed["phase"] == "launched"
    fencer = int(owed["fencer"]) if owed is not None else 0
    if nodeid in members and owed is None:
        reason = "unknown"
    else:
        reason = "leave" if left else "nodedown"
    failed = not left and times.fail_mono
    return {
        "member": int(nodeid in members),
        "killed": 0,
        "left_reason": reason,
        "need_fencing": int(owed is not None),
        "delay_fencing": 0,
        "fence_pid": 0,
        "fence_pid_wait": int(launched and fencer == sight.state.nodeid),
        "fence_result_wait": int(launched and fencer != sight.state.nodeid),
        "fence_actor_last": fencer,
        "fence_actor_done": times.fenced_by if times.fence_mono and owed is None else 0,
        "add_time": times.add,
        "rem_time": times.remove,
        "fail_walltime": times.fail_wall if failed else 0,
        "fail_monotime": times.fail_mono if failed else 0,
        "fence_walltime": times.fence_wall,
        "fence_monotime": times.fence_mono,
    }


# --- configuration --------------------------------------------------------------------------------------------------------------------

OPTIONS = (
    "daemon_debug", "foreground", "log_debug", "protocol", "port", "mark", "debug_logfile", "enable_fscontrol", "enable_plock",
    "plock_debug", "plock_rate_limit", "plock_ownership", "drop_resources_time", "drop_resources_count", "drop_resources_age",
    "post_join_delay", "enable_fencing", "enable_concurrent_fencing", "enable_startup_fencing", "repeat_failed_fencing",
    "enable_quorum_fencing", "enable_quorum_lockspace", "enable_helper",
)  # fmt: skip
"In dlm_controld's order."
FIXED: Mapping[str, int | str] = {
    "daemon_debug": 0, "foreground": 1, "log_debug": 0, "protocol": "tcp", "port": 21064, "mark": 0, "debug_logfile": 0,
    "enable_fscontrol": 0, "enable_plock": 1, "plock_debug": 0, "plock_rate_limit": 0, "plock_ownership": 1, "drop_resources_time": 0,
    "drop_resources_count": 0, "drop_resources_age": 0, "post_join_delay": 0, "enable_fencing": 1, "enable_concurrent_fencing": 1,
    "enable_startup_fencing": 1, "repeat_failed_fencing": 1, "enable_quorum_fencing": 1, "enable_quorum_lockspace": 1,
    "enable_helper": 0,
}  # fmt: skip
"What holds here unless somebody says otherwise; most of it cannot be otherwise."
SETTABLE = ("daemon_debug", "log_debug")
"What set_config may change; dlm_controld's other ones have no meaning here."


@dataclass(slots=True)
class Options:
    """Values by name: ``configured`` from cluster.toml (where they differ from the default), ``chosen`` by set_config."""

    configured: dict[str, int | str] = field(default_factory=dict)
    chosen: dict[str, int] = field(default_factory=dict)

    def value(self, name: str) -> int | str:
        return self.chosen.get(name, self.configured.get(name, FIXED[name]))

    def dump(self) -> str:
        lines = []
        for name in OPTIONS:
            origin = " (set_config)" if name in self.chosen else " (dlm.conf)" if name in self.configured else ""
            lines.append(f"{name}={self.value(name)}{origin}\n")
        return "".join(lines)

    def set(self, text: str) -> list[str]:
        """Take ``name=value ...``, ``name=restore`` and ``restore_all``; returns what was refused, in words."""
        refused = []
        for word in text.split():
            name, equals, value = word.partition("=")
            if word == "restore_all":
                self.chosen.clear()
            elif name not in SETTABLE:
                refused.append(f"{name} cannot be set here" if name in OPTIONS else f"{name} is no option")
            elif value == "restore":
                self.chosen.pop(name, None)
            elif not equals or not value.isascii() or not value.isdigit():
                refused.append(f"{word} has no number")
            else:
                self.chosen[name] = int(int(value) != 0)
        return refused
