# SPDX-License-Identifier: GPL-2.0-only
"""What a fault must never bring about, as pure judgements on evidence: times are the host's (ns), so one clock judges all nodes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

COMPATIBLE = {
    "NL": {"NL", "CR", "CW", "PR", "PW", "EX"},
    "CR": {"NL", "CR", "CW", "PR", "PW"},
    "CW": {"NL", "CR", "CW"},
    "PR": {"NL", "CR", "PR"},
    "PW": {"NL", "CR"},
    "EX": {"NL"},
}
"The VMS lock manager's table: which modes may be held beside each other."


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """A lock that somebody had, at least from ``begin`` to ``end``."""

    begin: int
    end: int
    holder: str
    lock: str
    mode: str


def intervals(holder: str, lines: Iterable[str], shift_ns: int) -> list[Held]:
    """What a locker printed. One that was cut off while it held a lock had it at least for an instant; what is torn is left out."""
    found: list[Held] = []
    have: tuple[str, str, int] | None = None
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # the last line of a node that lost power
        if not isinstance(said, dict) or "lock" not in said:
            continue
        if have is not None:
            name, mode, begin = have
            end = int(said["to"]) + shift_ns if said.get("lock") == name and "to" in said else begin
            found.append(Held(begin, end, holder, name, mode))
            have = None
        if "from" in said:
            have = (said["lock"], said["mode"], int(said["from"]) + shift_ns)
    if have is not None:
        found.append(Held(have[2], have[2], holder, have[0], have[1]))
    return found


def two_holders(held: Iterable[Held], error_ns: int) -> list[str]:
    """Every two holders of one lock in incompatible modes at once, by more than the clocks' error."""
    problems: list[str] = []
    by_lock: dict[str, list[Held]] = {}
    for each in sorted(held):
        by_lock.setdefault(each.lock, []).append(each)
    for name, turns in by_lock.items():
        open_: list[Held] = []
        for turn in turns:
            open_ = [o for o in open_ if o.end - turn.begin > error_ns]
            problems += [
                f"{name}: {o.holder} had it ({o.mode}) {(o.end - turn.begin) / 1e6:.2f} ms more when {turn.holder} got it ({turn.mode})"
                for o in open_ if o.holder != turn.holder and turn.mode not in COMPATIBLE[o.mode]
            ]  # fmt: skip
            open_.append(turn)
    return problems


@dataclass(frozen=True, slots=True)
class Life:
    """One boot of one node: while it is not over, it may write."""

    node: int
    boot: int
    on_ns: int
    gone_ns: int = 0
    "When its machine, its I/O included, was gone; 0: it lives."


@dataclass(frozen=True, slots=True)
class Started:
    """A start of a group that a node's kernel was given, with the members that it named."""

    host_ns: int
    node: int
    group: str
    event: str
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """What starts are judged by."""

    lives: Sequence[Life]
    proofs: Mapping[int, Sequence[int]] = field(default_factory=dict)
    "Node -> when somebody who may say so had said that its old life is over: a fence's answer, or a new boot."

    def alive(self, node: int, at_ns: int) -> Life | None:
        return next((x for x in self.lives if x.node == node and x.on_ns <= at_ns and not 0 < x.gone_ns <= at_ns), None)


def left_out(starts: Iterable[Started], trial: Trial, members: Iterable[int], since_ns: int) -> Iterator[tuple[Started, Life]]:
    """Every life of a member of the start before (``members``: of the last before ``since_ns``) with the first start that leaves it out."""
    first = {n: life for n in members if (life := trial.alive(n, since_ns)) is not None}
    last: dict[str, dict[int, Life]] = {}
    for start in sorted(starts, key=lambda s: s.host_ns):
        if start.host_ns <= since_ns:
            continue
        known = last.setdefault(start.group, dict(first))
        now = {n: life for n in start.members if (life := trial.alive(n, start.host_ns)) is not None}
        for node, life in sorted(known.items()):
            if node not in start.members or (node in now and now[node] != life):
                del known[node]
                yield start, life
        known |= now


def early_starts(starts: Iterable[Started], trial: Trial, members: Iterable[int], since_ns: int, error_ns: int) -> list[str]:
    """Starts that leave a life out which was not over, or which nobody had proved over (SAFETY S4, S6)."""
    problems: list[str] = []
    for start, life in left_out(starts, trial, members, since_ns):
        what = f"node {start.node} was given start {start.event} of {start.group} without node {life.node}"
        early_ms = (life.gone_ns - start.host_ns) / 1e6
        if not life.gone_ns:
            problems.append(f"{what}, which could still write")
        elif early_ms * 1e6 > error_ns:
            problems.append(f"{what} {early_ms:.1f} ms before that one's last write")
        elif not any(life.on_ns < p <= start.host_ns + error_ns for p in trial.proofs.get(life.node, ())):
            problems.append(f"{what}, which nobody had fenced and which had not booted again")
    return problems


@dataclass(frozen=True, slots=True)
class Written:
    """A record as it stands in the file, in the file's order."""

    counter: int
    writer: str
    began_ns: int = 0
    "When its writing began, by the writer's own word; 0: not said (its node lost power before)."


def late_writes(records: Sequence[Written], ended: Mapping[str, int], error_ns: int) -> list[str]:
    """Records of a writer whose life a start at ``ended[writer]`` has left out, behind one that somebody else began after that start."""
    problems: list[str] = []
    for writer, start_ns in ended.items():
        after = [r.counter for r in records if r.writer != writer and r.began_ns > start_ns + error_ns]
        first = min(after, default=0)
        late = [r.counter for r in records if r.writer == writer and after and r.counter > first]
        if late:
            problems.append(f"writer {writer} wrote {len(late)} records (first: {late[0]}) after the start without it and record {first}")
    return problems


def longest_gap(times: Sequence[int], since_ns: int, until_ns: int) -> float:
    """The longest time (ms) without an entry, between the last before ``since_ns`` and the first after ``until_ns``."""
    inner = [t for t in sorted(times) if since_ns <= t <= until_ns]
    before = max((t for t in times if t < since_ns), default=since_ns)
    after = min((t for t in times if t > until_ns), default=until_ns)
    stamps = [before, *inner, after]
    return max(b - a for a, b in zip(stamps, stamps[1:], strict=False)) / 1e6
