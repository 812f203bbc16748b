# SPDX-License-Identifier: GPL-2.0-only
"""The timeline of a failover and the history of fences, from the notices of three coordinators in one story; and how both are shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from xml.etree import ElementTree

from bridge.coordinator import api as co
from bridge.failover import KEEP, QUIET_NS, Failovers
from bridge.fence_history import FenceHistory
from bridge.recorder import Recorder
from tests.unit.coordinator_story import Story
from vcs.events import EventLog
from vcs.failover import Failover, svg, text

MS = 1_000_000
WALL = 1_700_000_000_000_000_000


def names(nodeid: int) -> str:
    return f"n{nodeid}"


class Recorded(Story):
    """Every node's notices become records of its event log, at the time of the story; ``step`` between two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[int, list[dict[str, object]]] = {1: [], 2: [], 3: []}
        self.now = 1_000_000 * MS

    def tell(self, n: int, what: co.Input) -> None:
        before = len(self.nodes[n].seen) if n in self.nodes else 0
        super().tell(n, what)
        self.now += MS
        for e in self.nodes[n].seen[before:]:
            if isinstance(e, co.Notice):
                fields = {f"{k}_" if k == "event" else k: v for k, v in e.fields.items()}
                self.told[n].append({"t": self.now, "wall": self.now + WALL, "event": e.event, **fields})

    def health(self, n: int, about: int, what: str, detail: str) -> None:
        at: dict[str, object] = {"t": self.now, "wall": self.now + WALL, "event": "peer_health"}
        self.told[n].append({**at, "nodeid": about, "what": what, "detail": detail})


def killed() -> Recorded:
    """Three nodes in two groups; node 3 dies; the first fence fails, the second is done."""
    story = Recorded()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("dlm:x", 1, 2, 3)
    story.join("dlm:y", 1, 2)
    story.power_off(3)
    for n in (1, 2):
        story.health(n, 3, "suspect", "no answer for 270 ms to 3 asks")
    story.now += 30 * MS
    story.form(1, 2)
    story.tell(1, co.FenceDone(3, 301, False, "board: no session", "board"))
    story.settle()
    story.later(1.0)
    story.tell(2, co.FenceDone(3, 301, True, "strip: off, status is off", "strip"))
    story.settle()
    return story


def timeline(story: Recorded, n: int) -> Failover:
    found = Failovers()
    for record in story.told[n]:
        found.feed(record)
    one = found.settle(story.now + QUIET_NS)
    assert one is not None and found.all == [one]
    return one


def test_a_failover_has_all_its_phases_in_order() -> None:
    one = timeline(killed(), 1)
    (victim,) = one["victims"]
    assert (victim["nodeid"], victim["incarnation"], victim["sign"]) == (3, f"{301:016x}", "no answer for 270 ms to 3 asks")
    assert victim["detected_ms"] == 0.0 and one["configured_ms"] is not None and one["view_ms"] is not None
    assert [(t["by"], t["ok"], t["method"], t["how"]) for t in victim["tries"]] == [
        (1, False, "board", "board: no session"), (2, True, "strip", "strip: off, status is off")]
    group = next(g for g in one["groups"] if g["name"] == "dlm:x")
    marks = [one["configured_ms"], group["stopping_ms"], group["stopped_ms"], victim["fenced_ms"], group["started_ms"],
             group["recovered_ms"]]
    assert marks == sorted(marks) and group["members"] == [1, 2] and one["complete"]
    assert group["finished_ms"] >= group["recovered_ms"] and one["done_ms"] == group["finished_ms"]
    assert {g["name"] for g in one["groups"]} == {"dlm:x"}, "y never had node 3, so it was not stopped"


def test_an_old_hiccup_of_the_victim_is_no_sign_of_its_death() -> None:
    """It was silent for a moment 50 s ago and nothing came of it: seen in the lab, where the failover then seemed to take 50 s longer."""
    story = killed()
    died = next(i for i, r in enumerate(story.told[1]) if r["event"] == "peer_health")
    at = int(str(story.told[1][died]["t"])) - 50_000 * MS
    story.told[1].insert(died, {**story.told[1][died], "t": at, "wall": at + WALL, "what": "silent", "detail": "no answer for 99 ms"})
    one = timeline(story, 1)
    assert one["victims"][0]["sign"] == "no answer for 270 ms to 3 asks" and one["victims"][0]["detected_ms"] == 0.0
    assert one["configured_ms"] is not None and one["configured_ms"] < 1000


def test_all_nodes_tell_the_same_story() -> None:
    story = killed()
    one, two = timeline(story, 1), timeline(story, 2)
    for key in ("rings", "members"):
        assert one[key] == two[key]
    assert [(v["nodeid"], v["incarnation"], [(t["by"], t["ok"], t["how"]) for t in v["tries"]]) for v in one["victims"]] == [
        (v["nodeid"], v["incarnation"], [(t["by"], t["ok"], t["how"]) for t in v["tries"]]) for v in two["victims"]]
    assert [(g["name"], g["id"], g["last_stop"], g["last_start"]) for g in one["groups"]] == [
        (g["name"], g["id"], g["last_stop"], g["last_start"]) for g in two["groups"]]


def test_it_is_not_over_before_the_fence() -> None:
    story = Recorded()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("dlm:x", 1, 2, 3)
    story.power_off(3)
    story.form(1, 2)
    found = Failovers()
    for record in story.told[1]:
        found.feed(record)
    assert found.settle(story.now + 1000 * QUIET_NS) is None and found.open is not None
    assert "not over" in text(found.open, names)[-1]


def test_a_quiet_life_is_no_failover() -> None:
    story = Recorded()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    story.join("dlm:x", 1, 2, 3)
    story.leave("dlm:x", 2)
    found = Failovers()
    for record in story.told[1]:
        found.feed(record)
    assert found.all == []


def test_only_the_last_twenty_are_kept() -> None:
    one = timeline(killed(), 1)
    found = Failovers([{**one, "number": n} for n in range(1, 40)])
    assert [f["number"] for f in found.all] == list(range(40 - KEEP, 40))


def test_the_text_names_each_phase_and_how_long_it_took() -> None:
    lines = text(timeline(killed(), 1), names)
    for word in ("n3: detected: no answer for 270 ms", "agreed", "view installed: n1, n2", "dlm:x: all stopped (last: n",
                 "n3: fence failed by n1, board: board: no session", "n3: fenced by n2, strip", "dlm:x: started",
                 "dlm:x: all recovered", "dlm:x: finished here"):
        assert any(word in line for line in lines), (word, lines)


def test_the_picture_is_sound_xml_whatever_the_names_are() -> None:
    one = timeline(killed(), 1)
    one["groups"][0]["name"] = 'dlm:<script>"&\x1b'
    root = ElementTree.fromstring(svg(one, names, "a <title> & more"))
    bars = [e for e in root.iter() if e.tag.endswith("rect") and list(e)]
    assert len(bars) >= 7 and all(float(e.get("width", "0")) >= 1 for e in bars)
    assert not [e for e in root.iter() if e.tag.endswith("script")]


def test_the_history_says_who_was_fenced_why_and_how() -> None:
    found = FenceHistory()
    for record in killed().told[1]:
        found.feed(record)
    (fence,) = found.entries
    assert (fence["nodeid"], fence["result"], fence["by"], fence["method"]) == (3, "fenced", 2, "strip")
    assert fence["why"] == "not in the configuration" and fence["groups"] == ["dlm:x"] and fence["ms"] > 1000
    assert [(a["by"], a["ok"], a["method"]) for a in fence["attempts"]] == [(1, False, "board"), (2, True, "strip")]


def test_both_survive_a_restart(tmp_path: Path) -> None:
    async def life() -> tuple[int, int]:
        log = EventLog(str(tmp_path / "events"), "n1", "vcsd")
        recorder = Recorder(log, str(tmp_path))
        before = len(recorder.timelines()), len(recorder.history())
        recorder.start()
        for record in killed().told[1]:
            log.note(str(record["event"]), **{k: v for k, v in record.items() if k not in ("t", "wall", "event")})
        recorder.close()
        log.close()
        return before

    assert asyncio.run(life()) == (0, 0)
    assert asyncio.run(life()) == (1, 1)
    (tmp_path / "fences.record").write_bytes(b"torn")
    assert asyncio.run(life())[1] == 0, "a damaged file costs the past and nothing else"
    assert json.dumps(killed().told[1])
