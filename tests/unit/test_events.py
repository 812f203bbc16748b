# SPDX-License-Identifier: GPL-2.0-only
"""The event log: whole lines from several writers, bounded, never raising, followed over rotations."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from vcs import events


def test_a_line_has_the_envelope_and_clashing_fields_are_kept(tmp_path: Path) -> None:
    log = events.EventLog(str(tmp_path / "run" / "e.jsonl"), "n1", "vcsd")
    log.note("group_start", event=7, node=2, members=(1, 2), raw=b"\x01")
    line = json.loads((tmp_path / "run" / "e.jsonl").read_text())
    assert (line["event"], line["event_"], line["node"], line["node_"]) == ("group_start", 7, "n1", 2)
    assert line["members"] == [1, 2] and line["raw"] == "01" and line["t"] > 0 and line["wall"] > line["t"]


def test_it_never_raises(tmp_path: Path) -> None:
    log = events.EventLog("/proc/no/such/place", "n1", "x")
    seen: list[events.Record] = []
    log.subscribe(seen.append)
    loop: dict[str, object] = {}
    loop["self"] = loop
    log.note("fine", a=object())
    log.note("bad", loop=loop)
    assert log.dropped == 2 and [r["event"] for r in seen] == ["fine"]
    log.subscribe(lambda _record: 1 / 0)  # type: ignore[arg-type]
    log.note("again")
    assert seen[-1]["event"] == "again"


def test_a_long_line_says_that_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    events.EventLog(str(path), "n", "s").note("big", text="x" * (1 << 17))
    assert next(events.read(str(path)))["truncated"] > (1 << 17)  # type: ignore[operator]


def test_two_writers_rotate_and_a_tail_loses_nothing_that_it_was_there_for(tmp_path: Path) -> None:
    path = str(tmp_path / "e.jsonl")
    one, two = (events.EventLog(path, "n", s, max_bytes=2000) for s in ("one", "two"))
    tail = events.Tail(path)
    got: list[events.Record] = []
    for i in range(50):
        one.note("tick", i=i)
        two.note("tick", i=i)
        got += tail.poll()
    assert [(r["source"], r["i"]) for r in got] == [(s, i) for i in range(50) for s in ("one", "two")]
    assert os.path.getsize(path) <= 2200 and os.path.getsize(path + ".1") <= 2300
    assert {r["source"] for r in events.read(path)} == {"one", "two"}
    tail.close()


def test_follow_is_woken_by_another_writer(tmp_path: Path) -> None:
    path = str(tmp_path / "e.jsonl")
    Path(path).write_text("not json\n")

    async def run() -> events.Record:
        stream = events.follow(path)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)  # let it open before the line is written
        events.EventLog(path, "n", "glue").note("hello")
        record = await asyncio.wait_for(first, 5)
        await stream.aclose()
        return record

    assert asyncio.run(run())["source"] == "glue"
