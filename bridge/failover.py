# SPDX-License-Identifier: GPL-2.0-only
"""The timeline of a failover, made from nothing but the records of this node's event log. Pure: times are in the records.

A failover begins with the first sign of trouble about a node that then fails, and ends when every fence that is owed is done and every
group that was stopped meanwhile has recovered. A further failure on the way belongs to it. Its phases are explained in docs/failover.md;
its shape (vcs/failover.py) is what `vcs failover` shows. All nodes tell the same story, each by its own clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from vcs.failover import Failover, FenceTry, Victim

Record = Mapping[str, Any]
KEEP: Final = 20
"Failovers that are remembered."
QUIET_NS: Final = 1_000_000_000
"Nothing was waited for any more for so long: it is over."
DOUBT_NS: Final = 3_000_000_000
"""Nobody says that a doubtful node answers again. But signs of a node that dies follow each other closely: one that nothing has followed
for so long was about something else."""
DOUBTS: Final = ("silent", "suspect", "process_dead")
TRIES_MAX: Final = 50
GROUPS_MAX: Final = 256
MARKS: Final = {
    "group_stopping": "stopping_ms", "group_stopped": "stopped_ms", "group_started": "started_ms", "group_recovered": "recovered_ms",
}


class Failovers:
    """Fed with records; ``past`` are those that are over, oldest first, ``open`` the one that is not."""

    def __init__(self, past: Iterable[Failover] = ()) -> None:
        self.past: list[Failover] = list(past)[-KEEP:]
        self.open: Failover | None = None
        self._began = self._last = 0
        self._doubts: dict[int, tuple[tuple[int, str], int]] = {}
        "nodeid -> (first sign of this trouble and what it was, the newest)."
        self._gather = (0, "")
        self._ring = ""
        self._members: list[int] = []
        self._configured = 0
        self._owed: set[tuple[int, int]] = set()
        self._stopped: set[str] = set()
        "Groups of the open one that have not recovered."
        self._takes: dict[str, Callable[[Record], None]] = {
            "peer_health": self._health, "totem_gather": self._gathers, "configuration": self._configuration,
            "node_failed": self._failed, "obligation": self._obligation, "fence_launched": self._launched, "fence_result": self._result,
            "view_installed": self._view, "group_gone": self._gone, "group_finish": self._finish, **dict.fromkeys(MARKS, self._group),
        }

    def feed(self, record: Record) -> None:
        take = self._takes.get(str(record.get("event")))
        if take is not None:
            take(record)

    def settle(self, now_ns: int) -> Failover | None:
        """The open failover, if it is over by now: it has moved to the past."""
        done = self.open
        if done is None or self._owed or self._stopped or now_ns - self._last < QUIET_NS:
            return None
        done["complete"] = True
        self.past = [*self.past, done][-KEEP:]
        self.open = None
        return done

    @property
    def all(self) -> list[Failover]:
        return [*self.past, *([self.open] if self.open is not None else [])]

    # --- before it --------------------------------------------------------------------------------------------------------
    def _health(self, r: Record) -> None:
        nodeid, what = int(r["nodeid"]), str(r["what"])
        if what in DOUBTS:
            sign = (int(r["t"]), str(r.get("detail") or what))
            first, newest = self._doubts.get(nodeid, (sign, sign[0]))
            self._doubts[nodeid] = (first if sign[0] - newest < DOUBT_NS else sign, sign[0])
        elif what == "returned":
            self._doubts.pop(nodeid, None)

    def _gathers(self, r: Record) -> None:
        if not self._gather[0]:
            self._gather = (int(r["t"]), str(r.get("why", "")))

    def _configuration(self, r: Record) -> None:
        if r.get("kind") != "regular":
            return
        self._ring, self._members, self._configured = str(r["ring"]), [int(n) for n in r["members"]], int(r["t"])
        if self.open is not None:
            self._mark(r, "configured_ms")
            self.open["rings"].append(self._ring)
        # Whoever is here is doubted no more; what began this configuration is kept until its consequences are known.
        for nodeid in self._members:
            self._doubts.pop(nodeid, None)

    # --- it begins ----------------------------------------------------------------------------------------------------------
    def _failed(self, r: Record) -> None:
        nodeid, now = int(r["nodeid"]), int(r["t"])
        if self.open is None:
            self._begin(r, nodeid)
        assert self.open is not None
        at, sign = self._sign(nodeid, now)
        self._doubts.pop(nodeid, None)
        victim: Victim = {"nodeid": nodeid, "incarnation": _hex(r["incarnation"]), "why": str(r["why"]), "sign": sign,
                          "detected_ms": self._ms(at), "tries": []}  # fmt: skip
        self.open["victims"].append(victim)
        self._last = now

    def _sign(self, nodeid: int, now: int) -> tuple[int, str]:
        """When the trouble with the node began, and how it showed."""
        began = self._gather[0] or now
        first, newest = self._doubts.get(nodeid, ((now, ""), now))
        return first if began - newest < DOUBT_NS else (now, "")

    def _begin(self, r: Record, nodeid: int) -> None:
        now = int(r["t"])
        signs = [self._sign(nodeid, now)[0]]
        if self._gather[0] and now - self._configured < QUIET_NS:
            signs.append(self._gather[0])
        self._began = min(signs)
        number = self.past[-1]["number"] + 1 if self.past else 1
        self.open = {"number": number, "wall_ns": int(r["wall"]) - (now - self._began), "rings": [self._ring], "members": self._members,
                     "victims": [], "groups": [], "configured_ms": None, "view_ms": None, "done_ms": 0.0, "complete": False}  # fmt: skip
        if self._began <= self._configured <= now:
            self.open["configured_ms"] = self._ms(self._configured)

    # --- on its way ---------------------------------------------------------------------------------------------------------
    def _view(self, r: Record) -> None:
        self._gather = (0, "")
        if self.open is not None and r.get("quorate"):
            self._mark(r, "view_ms")
            self.open["members"] = [int(n) for n in r["members"]]

    def _obligation(self, r: Record) -> None:
        if self.open is not None and any(v["nodeid"] == r["nodeid"] for v in self.open["victims"]):
            self._owed.add((int(r["nodeid"]), int(r["incarnation"])))

    def _victim(self, r: Record) -> Victim | None:
        known = self.open["victims"] if self.open is not None else []
        return next((v for v in known if (v["nodeid"], v["incarnation"]) == (r["nodeid"], _hex(r["incarnation"]))), None)

    def _launched(self, r: Record) -> None:
        victim = self._victim(r)
        if victim is not None and len(victim["tries"]) < TRIES_MAX:
            victim["tries"].append(_try(r, self._ms(int(r["t"]))))
            self._last = int(r["t"])

    def _result(self, r: Record) -> None:
        victim, key = self._victim(r), (int(r["nodeid"]), int(r["incarnation"]))
        if r["ok"]:
            self._owed.discard(key)
        if victim is None:
            return
        at = self._ms(int(r["t"]))
        one = victim["tries"][-1] if victim["tries"] and victim["tries"][-1]["ended_ms"] is None else None
        if one is None:
            one = _try(r, at)
            victim["tries"].append(one)
        one |= {"ended_ms": at, "ok": bool(r["ok"]), "method": str(r.get("method", "")), "how": str(r.get("how") or r.get("detail") or "")}
        if r["ok"]:
            victim["fenced_ms"] = at
        self._step(r)

    def _group(self, r: Record) -> None:
        if self.open is None:
            return
        name, what = str(r["group"]), str(r["event"])
        times = next((g for g in self.open["groups"] if g["name"] == name), None)
        if what == "group_stopping":
            if times is None:
                if len(self.open["groups"]) >= GROUPS_MAX:
                    return
                times = {"name": name, "level": int(r["level"]), "id": "", "members": []}
                self.open["groups"].append(times)
            again = times.get("events", 0)
            for key in (*MARKS.values(), "finished_ms", "last_stop", "last_start"):
                if key != "stopping_ms" or not again:
                    times.pop(key, None)  # type: ignore[misc]
            times |= {"id": str(r["id"]), "members": [int(n) for n in r["members"]], "events": again + 1}
            self._stopped.add(name)
            times.setdefault("stopping_ms", self._ms(int(r["t"])))
        elif times is not None and times["id"] == r["id"]:
            cast("dict[str, Any]", times)[MARKS[what]] = self._ms(int(r["t"]))
            if r.get("last"):
                times["last_stop" if what == "group_stopped" else "last_start"] = int(r["last"])
            if what == "group_recovered":
                self._stopped.discard(name)
        self._step(r)

    def _finish(self, r: Record) -> None:
        """This node's own switch was told."""
        times = next((g for g in self.open["groups"] if g["name"] == r["group"]), None) if self.open is not None else None
        if times is not None:
            times["finished_ms"] = self._ms(int(r["t"]))
            self._step(r)

    def _gone(self, r: Record) -> None:
        self._stopped.discard(str(r["group"]))

    # --- time ---------------------------------------------------------------------------------------------------------------
    def _ms(self, t_ns: int) -> float:
        return round((t_ns - self._began) / 1e6, 3)

    def _mark(self, r: Record, name: str) -> None:
        assert self.open is not None
        cast("dict[str, Any]", self.open)[name] = self._ms(int(r["t"]))
        self._last = int(r["t"])

    def _step(self, r: Record) -> None:
        self._last = int(r["t"])
        if self.open is not None:
            self.open["done_ms"] = self._ms(self._last)


def _try(r: Record, at_ms: float) -> FenceTry:
    return {"by": int(r.get("by", 0)), "launched_ms": at_ms, "ended_ms": None, "ok": False, "method": "", "how": ""}


def _hex(incarnation: object) -> str:
    return f"{int(cast('int', incarnation)):016x}"
