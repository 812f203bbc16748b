# SPDX-License-Identifier: GPL-2.0-only
"""Why the configuration changed: what was noticed since the one before, kept for people, and told in their words. Pure.

Nothing here decides anything. What is told was evidence when the decision was made: the answers that this node missed itself, what
others claimed, what a peer or its guardian said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from membership.api import Processor
from membership.totem.clique import Claim
from vcs.model import RingId

CHANGES_MAX = 16
"Configurations remembered."
EVIDENCE_MAX = 128
"What was noticed between two of them; the newest counts."
REASONS_MAX = 8
TOLD_MAX = 4
"Nodes of which one sentence each is told; of more of the same kind only the names."

Names = Callable[[int], str]
"How a node is called."
Times = Callable[[int], str]
"How a time (ns, the core's clock) is told."


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something noticed about a node. ``at`` is 0 until the call in which it happened ends."""

    at: int
    nodeid: int
    what: str
    "As in membership.api.Health."
    detail: str
    since: int = 0
    "When the first of the asks went out that it did not answer; 0: it owed nothing."
    asks: int = 0
    refused: int = 0
    "How often the kernel said that nobody listens there."


@dataclass(frozen=True, slots=True)
class Change:
    """One configuration, and what led to it."""

    at: int
    ring: RingId
    members: tuple[Processor, ...]
    before: tuple[Processor, ...]
    "Members of the one before; empty for the first."
    claims: frozenset[Claim]
    vouched: frozenset[Processor]
    "Of those that somebody claims not to reach: whom somebody else does reach."
    failed: frozenset[Processor]
    evidence: tuple[Evidence, ...]
    reasons: tuple[tuple[int, str], ...]
    "(when, why) for each time that members had to be agreed on anew."


class History:
    """Filled by the core as things happen; :meth:`stamp` gives the time at the end of the call."""

    def __init__(self) -> None:
        self.changes: deque[Change] = deque(maxlen=CHANGES_MAX)
        self.fresh: list[Evidence | Change | str] = []
        self.evidence: deque[Evidence] = deque(maxlen=EVIDENCE_MAX)
        self.reasons: deque[tuple[int, str]] = deque(maxlen=REASONS_MAX)
        self.total = 0
        "Configurations since the start."

    def noticed(self, nodeid: int, what: str, detail: str, since: int = 0, asks: int = 0, refused: int = 0) -> None:
        self.fresh.append(Evidence(0, nodeid, what, detail, since, asks, refused))

    def gathering(self, why: str) -> None:
        self.fresh.append(why)

    def installed(self, ring: RingId, members: tuple[Processor, ...], before: tuple[Processor, ...], claims: Iterable[Claim] = (),
                  vouched: Iterable[Processor] = (), failed: Iterable[Processor] = ()) -> None:
        self.fresh.append(Change(0, ring, members, before, frozenset(claims), frozenset(vouched), frozenset(failed), (), ()))

    def stamp(self, now: int) -> None:
        """What happened in this call happened now."""
        fresh, self.fresh = self.fresh, []
        for what in fresh:
            if isinstance(what, str):
                self.reasons.append((now, what))
            elif isinstance(what, Evidence):
                e = what
                self.evidence.append(Evidence(now, e.nodeid, e.what, e.detail, e.since, e.asks, e.refused))
            else:
                c = what
                self.total += 1
                self.changes.append(Change(now, c.ring, c.members, c.before, c.claims, c.vouched, c.failed, tuple(self.evidence),
                                           tuple(self.reasons)))
                self.evidence.clear()
                self.reasons.clear()


# --- in words -----------------------------------------------------------------------------------------------------------------


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def on_links(count: int) -> str:
    return {1: "", 2: " on both links"}.get(count, f" on all {count} links")


class Teller:
    """Says why one change happened, as the node ``local`` knows it."""

    def __init__(self, change: Change, local: int, links: int, names: Names, times: Times) -> None:
        self._change, self._local, self._links = change, local, links
        self._name, self._time = names, times
        self._by: dict[int, Evidence] = {}
        "The weightiest evidence for each node."
        for e in change.evidence:
            held = self._by.get(e.nodeid)
            if held is None or _WEIGHT.get(e.what, 0) >= _WEIGHT.get(held.what, 0):
                self._by[e.nodeid] = e

    def sentences(self) -> list[str]:
        change = self._change
        if not change.before:
            return [f"this node started at {self._time(change.at)}, alone until it hears others"]
        before, after = {p.nodeid: p for p in change.before}, {p.nodeid: p for p in change.members}
        out = self._gone([before[n] for n in before if n not in after])
        out += self._again([(before[n], after[n]) for n in before if n in after and after[n] != before[n]])
        out += self._came([n for n in after if n not in before])
        if not out:
            out = [self._same()]
        for e in change.evidence:
            if e.nodeid == self._local and e.what == "late":
                out.append(f"{e.detail} until {self._time(e.at)}: what it missed then is no evidence against others")
                break
        return out

    # gone

    def _gone(self, gone: list[Processor]) -> list[str]:
        kinds: dict[str, list[Processor]] = {}
        for p in gone:
            kinds.setdefault(self._kind(p), []).append(p)
        out = []
        for kind, processors in kinds.items():
            tell = getattr(self, f"_tell_{kind}")
            if len(processors) <= TOLD_MAX:
                out += [tell(p) for p in processors]
            else:
                names = listed([self._name(p.nodeid) for p in processors])
                out.append(f"{names} {_SUMMARY[kind]}; the first: {tell(processors[0])}")
        return out

    def _kind(self, p: Processor) -> str:
        e = self._by.get(p.nodeid)
        if e is not None and e.what in ("left", "process_dead"):
            return str(e.what)
        if e is not None and e.what == "suspect":
            return "silent" if e.asks else "agreeing"
        return "claimed" if self._claimers(p) else "elsewhere"

    def _claimers(self, p: Processor) -> list[int]:
        """Others that claim to have no round trip with ``p``."""
        return sorted(a.nodeid for a, b in self._change.claims if b == p and a.nodeid != self._local)

    def _agreement(self, p: Processor) -> str:
        claimers = self._claimers(p)
        agree = f"; {listed([self._name(n) for n in claimers])} agree{'s' if len(claimers) == 1 else ''}" if claimers else ""
        if p in self._change.vouched:
            agree += "; somebody else still hears it: whoever lacks a member's answers cannot be in one ring with it"
        return agree

    def _tell_left(self, p: Processor) -> str:
        return f"{self._name(p.nodeid)} left at {self._time(self._by[p.nodeid].at)}"

    def _tell_process_dead(self, p: Processor) -> str:
        return (
            f"the engine of {self._name(p.nodeid)} died at {self._time(self._by[p.nodeid].at)}: "
            "the process that watches over it said so, so its machine still ran"
        )

    def _tell_silent(self, p: Processor) -> str:
        e = self._by[p.nodeid]
        silent = (e.at - e.since) // 1_000_000 if e.since else 0
        asked = f"{e.asks} ask{'s' if e.asks != 1 else ''}{on_links(self._links)} unanswered for {silent} ms"
        text = f"{self._name(p.nodeid)} stopped answering at {self._time(e.since or e.at)}: {asked}{self._agreement(p)}"
        if e.refused:
            return f"{text}. Its machine says that nobody listens on the port: the process has probably ended"
        return f"{text}. Its process may still run"

    def _tell_agreeing(self, p: Processor) -> str:
        e = self._by[p.nodeid]
        return f"{self._name(p.nodeid)} answers, but {e.detail} (at {self._time(e.at)}){self._agreement(p)}"

    def _tell_claimed(self, p: Processor) -> str:
        claimers = listed([self._name(n) for n in self._claimers(p)])
        heard = "; others still hear it" if p in self._change.vouched else ""
        return f"{claimers} could not get an answer from {self._name(p.nodeid)}{heard}. Its process may still run"

    def _tell_elsewhere(self, p: Processor) -> str:
        mine = [b for a, b in self._change.claims if a == p]
        if mine:
            return f"{self._name(p.nodeid)} could not get an answer from {listed([self._name(b.nodeid) for b in mine])} and stays outside"
        return f"{self._name(p.nodeid)} did not take part{self._trigger()}"

    # came

    def _again(self, pairs: list[tuple[Processor, Processor]]) -> list[str]:
        out = []
        for old, new in pairs:
            what = "the engine of {} was started again" if old.boot == new.boot else "{} was booted again"
            out.append(what.format(self._name(new.nodeid)))
        return out

    def _came(self, nodeids: list[int]) -> list[str]:
        return [f"{listed([self._name(n) for n in nodeids])} joined at {self._time(self._change.at)}"] if nodeids else []

    def _same(self) -> str:
        return f"the same members formed a new ring{self._trigger()}"

    def _trigger(self) -> str:
        if not self._change.reasons:
            return ""
        at, why = self._change.reasons[0]
        return f" (it began at {self._time(at)}: {why})"


_WEIGHT = {"returned": 0, "late": 0, "link_up": 0, "link_down": 0, "silent": 1, "suspect": 2, "process_dead": 3, "left": 3}
_SUMMARY = {
    "left": "left",
    "process_dead": "lost their engines' processes",
    "silent": "stopped answering",
    "agreeing": "answer, but do not agree",
    "claimed": "could not be reached by some members",
    "elsewhere": "did not take part",
}
