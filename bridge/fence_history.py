# SPDX-License-Identifier: GPL-2.0-only
"""Who was fenced, why, by whom, how, and what was tried first. Pure: made from the records of this node's event log, as the timeline is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from vcs.report import FenceAttempt, FenceReport

KEEP: Final = 100
"Fences that are remembered."
ATTEMPTS_MAX: Final = 50
"Of one fence; the first and the newest are kept."

Record = Mapping[str, Any]


class FenceHistory:
    """Oldest first. ``feed`` says whether anything has changed."""

    def __init__(self, past: Iterable[FenceReport] = ()) -> None:
        self.entries: list[FenceReport] = list(past)[-KEEP:]

    def feed(self, r: Record) -> bool:
        what = r.get("event")
        if what == "obligation":
            return self._owed(r)
        if what in ("fence_launched", "fence_result"):
            entry = self._open(r)
            if entry is None:
                return False
            if what == "fence_launched":
                self._launched(entry, r)
            else:
                self._result(entry, r)
            return True
        return what == "fence_done" and self._done(r)

    def _open(self, r: Record) -> FenceReport | None:
        key = (r["nodeid"], _hex(r["incarnation"]))
        return next((e for e in reversed(self.entries) if not e["ended_ns"] and (e["nodeid"], e["incarnation"]) == key), None)

    def _owed(self, r: Record) -> bool:
        entry = self._open(r)
        groups = ["(all)"] if r.get("everything") else [str(g) for g in r.get("groups", ())]
        if entry is not None:
            entry["groups"] = groups
            return True
        self.entries.append({
            "nodeid": int(r["nodeid"]), "incarnation": _hex(r["incarnation"]), "owed_ns": int(r["wall"]), "ended_ns": 0, "ms": 0.0,
            "why": str(r.get("why", "")), "groups": groups, "result": "owed", "by": 0, "method": "", "how": "", "attempts": [],
        })
        del self.entries[:-KEEP]
        return True

    def _launched(self, entry: FenceReport, r: Record) -> None:
        attempt: FenceAttempt = {"by": int(r["by"]), "began_ns": int(r["wall"]), "ms": None, "ok": False, "method": "", "detail": "",
                                 "steps": []}  # fmt: skip
        if len(entry["attempts"]) >= ATTEMPTS_MAX:
            del entry["attempts"][1]
        entry["attempts"].append(attempt)

    def _result(self, entry: FenceReport, r: Record) -> None:
        attempt = entry["attempts"][-1] if entry["attempts"] and entry["attempts"][-1]["ms"] is None else None
        detail = str(r.get("how") or r.get("detail") or "")
        if attempt is not None:
            attempt["ms"] = _ms(attempt["began_ns"], r)
            attempt["ok"], attempt["method"], attempt["detail"] = bool(r["ok"]), str(r.get("method", "")), detail
        if r["ok"]:
            entry["ended_ns"], entry["ms"] = int(r["wall"]), _ms(entry["owed_ns"], r)
            entry["result"] = "fenced" if r.get("method") else "ended"
            entry["by"], entry["method"], entry["how"] = int(r.get("by", 0)), str(r.get("method", "")), detail

    def _done(self, r: Record) -> bool:
        """This node's own agents: what each of them did."""
        for entry in reversed(self.entries):
            if (entry["nodeid"], entry["incarnation"]) == (r["nodeid"], _hex(r["incarnation"])) and entry["attempts"]:
                entry["attempts"][-1]["steps"] = [dict(s) for s in r.get("steps", ())]
                return True
        return False


def _ms(began_ns: int, r: Record) -> float:
    return round(max(int(r["wall"]) - began_ns, 0) / 1e6, 3)


def _hex(incarnation: Any) -> str:
    return f"{int(incarnation, 16) if isinstance(incarnation, str) else int(incarnation):016x}"


def valid(value: object) -> bool:
    """Is this an entry as we write them?"""
    return isinstance(value, Mapping) and isinstance(value.get("nodeid"), int) and isinstance(value.get("attempts"), list)
