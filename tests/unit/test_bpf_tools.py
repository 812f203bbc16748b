# SPDX-License-Identifier: GPL-2.0-only
"""The BPF tools without a kernel: formats of tracepoints, records, times of groups, waits for locks and what is to blame, lines."""

from __future__ import annotations

import argparse
import struct
from pathlib import Path
from types import ModuleType

import pytest

from dlm_glue.state import global_id
from tools import locks, vcsdlm, vcslat, vcssnoop
from tools.latency import Latency, histogram
from tools.locks import Blame, Stops, Wait
from tools.tracepoints import HEADER, RAW_MAX, Event, Field, Tracepoint, parse_format, program, read_header
from tools.words import details

ROOT = Path(__file__).parents[2]
FORMAT = """name: vcs_group_stop
ID: 1687
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:u32 cluster;	offset:8;	size:4;	signed:0;
	field:char handle[64 + 1];	offset:12;	size:65;	signed:0;
	field:u64 event;	offset:80;	size:8;	signed:0;
	field:int err;	offset:88;	size:4;	signed:1;
	field:__data_loc unsigned char[] res_name;	offset:92;	size:4;	signed:0;

print fmt: "cluster=%u %s", REC->cluster, REC->handle
"""
MS = 1_000_000


def raw(event: int = 7, err: int = -110) -> bytes:
    return struct.pack("=HBBiI65s3xQiI", 1687, 0, 0, 1, 3, b"lab\0rest of the stack", event, err, 0)


def group(name: str, at_ms: int, which: str = "dlm:one", **fields: int) -> Event:
    return Event(at_ms * MS, f"vcs_group_{name}", 42, "vcsd", {"cluster": 1, "handle": "lab", "group": which, **fields})


# --- formats and records ----------------------------------------------------------------------------------------------


def test_a_format_tells_every_field() -> None:
    tracepoint = parse_format("vcs", FORMAT)
    assert (tracepoint.name, tracepoint.id, tracepoint.size) == ("vcs_group_stop", 1687, 96)
    assert tracepoint.field("handle") == Field("handle", 12, 65, False, True)
    assert tracepoint.field("res_name").dynamic
    with pytest.raises(LookupError, match="vcs:vcs_group_stop of this kernel has no field colour"):
        tracepoint.field("colour")


def test_a_record_is_read_by_its_format() -> None:
    values = parse_format("vcs", FORMAT).decode(raw())
    assert values == {"cluster": 3, "handle": "lab", "event": 7, "err": -110, "res_name": 0}


def test_what_is_no_format_and_what_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="no format"):
        parse_format("vcs", "nonsense")
    with pytest.raises(ValueError, match="95 bytes of 96"):
        parse_format("vcs", FORMAT).decode(raw()[:95])
    with pytest.raises(ValueError, match="has no header"):
        read_header(b"short")


def test_the_header_is_read() -> None:
    data = HEADER.pack(5, 1687, 42, b"vcsd\0\0") + raw()
    assert read_header(data) == (5, 1687, 42, "vcsd", raw())


def test_the_program_has_a_function_for_each_and_refuses_what_does_not_fit() -> None:
    text = program([parse_format("vcs", FORMAT)])
    assert "int on_vcs_group_stop(void *ctx)" in text
    assert "r.id = 1687;" in text
    assert "bpf_probe_read_kernel(r.raw, 96, ctx);" in text
    assert text.count("{") == text.count("}")
    with pytest.raises(ValueError, match=f"{RAW_MAX} can be brought"):
        program([Tracepoint("vcs", "vcs_big", 1, (Field("much", 8, RAW_MAX, False, True),))])


# --- times of groups --------------------------------------------------------------------------------------------------


def times(*events: Event) -> list[tuple[str, int]]:
    latency = Latency()
    return [(took.kind, took.ns // MS) for event in events for took in latency.feed(event)]


def test_a_whole_event_is_a_stop_a_start_and_a_recovery() -> None:
    assert times(
        group("stop", 100, event=1), group("ack", 105, event=1, acked_event=1, acked_phase=1),
        group("start", 200, event=1), group("ack", 230, event=1, acked_event=1, acked_phase=2), group("finish", 240, event=1),
    ) == [("stop", 5), ("start", 30), ("recovery", 140)]  # fmt: skip


def test_an_event_that_is_replaced_makes_the_recovery_longer() -> None:
    assert times(
        group("stop", 0, event=1), group("ack", 5, acked_event=1, acked_phase=1), group("start", 10, event=1),
        group("stop", 50, event=2), group("ack", 51, acked_event=1, acked_phase=2), group("ack", 52, acked_event=2, acked_phase=1),
        group("start", 60, event=2), group("ack", 70, acked_event=2, acked_phase=2), group("finish", 90, event=2),
    ) == [("stop", 5), ("stop", 2), ("start", 10), ("recovery", 90)]  # fmt: skip


def test_groups_and_clusters_are_kept_apart_and_the_lost_are_forgotten() -> None:
    other = Event(1 * MS, "vcs_group_finish", 1, "x", {"handle": "other", "group": "dlm:one", "event": 1})
    assert times(group("stop", 0, event=1), other, group("finish", 3, "dlm:two", event=1), group("finish", 9, event=1)) == [("recovery", 9)]
    assert times(group("stop", 0, event=1), group("lost", 2), group("finish", 9, event=1)) == []
    assert times(group("finish", 9, event=1), group("ack", 9, acked_event=1, acked_phase=2)) == []


def test_a_histogram_counts_powers_of_two() -> None:
    lines = histogram([0, 1, 2, 3, 3, 9], "usecs")
    assert [line.split("|")[0].split() for line in lines[1:]] == [
        ["0", "->", "1", ":", "2"], ["2", "->", "3", ":", "3"], ["4", "->", "7", ":", "0"], ["8", "->", "15", ":", "1"]
    ]  # fmt: skip
    assert lines[2].count("*") == 40
    assert lines[1].count("*") == 26
    assert histogram([], "usecs") == []


def test_the_report_of_times_says_how_many_and_how_long() -> None:
    text = "\n".join(vcslat.report({("lab", "dlm:one", "stop"): [5 * MS, 7 * MS]}, True))
    assert "cluster = lab, group = dlm:one, stop" in text
    assert "2 in all, mean 6, longest 7 msecs" in text
    assert "no group has changed" in vcslat.report({}, False)


# --- waits for locks --------------------------------------------------------------------------------------------------


def wait(begun_ms: int, ended_ms: int, lockspace: str = "one", **changed: object) -> Wait:
    values: dict[str, object] = {"mode": 5, "status": 0, "resource": b"r", "pid": 9, "comm": "app", **changed}
    return Wait(begun_ms * MS, ended_ms * MS, global_id(lockspace), 1, **values)  # type: ignore[arg-type]


def test_a_wait_is_blamed_on_the_stop_it_fell_into() -> None:
    stops = Stops()
    stops.feed(group("stop", 100, event=1 << 20 | 4))
    assert stops.blame(wait(50, 130)) == Blame(30 * MS, (1 << 20 | 4,))  # not over yet
    stops.feed(group("ack", 110, acked_event=1 << 20 | 4, acked_phase=1))
    stops.feed(group("ack", 200, acked_event=1 << 20 | 4, acked_phase=2))
    stops.feed(group("finish", 220, event=1 << 20 | 4))
    assert stops.blame(wait(50, 250)) == Blame(100 * MS, (1 << 20 | 4,))
    assert stops.blame(wait(150, 160)) == Blame(10 * MS, (1 << 20 | 4,))
    assert stops.blame(wait(210, 900)) == Blame(0, ())
    assert stops.blame(wait(50, 250, "two")) == Blame(0, ())


def test_a_wait_over_two_stops_names_both_and_a_replaced_event_only_the_last() -> None:
    stops = Stops()
    for event in (
        group("stop", 0, event=1), group("ack", 10, acked_event=1, acked_phase=2), group("stop", 20, event=2), group("stop", 30, event=3),
        group("ack", 40, acked_event=3, acked_phase=2),
    ):  # fmt: skip
        stops.feed(event)
    assert stops.blame(wait(0, 100)) == Blame(30 * MS, (1, 3))


def test_what_is_no_lockspace_is_not_looked_at() -> None:
    stops = Stops()
    assert not stops.feed(group("stop", 0, "app:one", event=1))
    assert stops.feed(group("stop", 0, event=1))
    assert stops.name_of(global_id("one")) == "one"
    assert stops.name_of(0xBEEF) == "0000beef"


def test_a_wait_is_read_as_the_program_sends_it() -> None:
    name = b"       2           12345"
    body = locks.BODY.pack(10, global_id("one"), 0x3000001, 3, 1, -11, len(name), name)
    got = locks.read_wait(30, 9, "mkdir", body)
    assert (got.ns, got.mode_text(), got.status, got.resource_text()) == (20, "PR", -11, "2_12345")
    with pytest.raises(ValueError, match="bytes of"):
        locks.read_wait(30, 9, "mkdir", body[:-1])


@pytest.mark.parametrize(
    ("status", "flags", "shown"),
    [
        (0, 0, "granted"), (0, 2, "granted"), (-11, 0, "EAGAIN"), (-35, 1, "EDEADLK"),
        (-0x10001, 0, "cancelled"), (-0x10002, 0, "unlocked"),
        # Linux 6.12, a program's lock: the flags are where the status should be, and of the status one byte is there
        (2, 0, "granted"), (0, -11 & 0xFF, "EAGAIN"), (1, -35 & 0xFF, "EDEADLK"),
        (0, -0x10001 & 0xFF, "cancelled"), (0, -0x10002 & 0xFF, "unlocked"),
    ],
)  # fmt: skip
def test_the_answer_is_understood_in_either_order(status: int, flags: int, shown: str) -> None:
    body = locks.BODY.pack(10, 1, 2, 3, flags, status, 1, b"r")
    assert locks.result_text(locks.read_wait(30, 9, "app", body).status) == shown
    assert locks.result_text(None) == "waiting"


@pytest.mark.parametrize(("name", "shown"), [(b"res\0\0", "res"), (b"\x01\x02", "0102"), (b"", "-"), (b"  ", "2020")])
def test_names_of_resources_are_shown_on_one_line(name: bytes, shown: str) -> None:
    assert wait(0, 1, resource=name).resource_text() == shown


def dlm_tracepoints() -> dict[str, Tracepoint]:
    names = ("ls_id", "lkb_id", "mode", "flags", "error", "sb_status", "res_name", "sb_flags")
    fields = tuple(Field(name, 8 + 4 * i, 4, False, False, name == "res_name") for i, name in enumerate(names))
    return {name: Tracepoint("dlm", name, i + 1, fields) for i, name in enumerate(locks.TRACEPOINTS)}


def test_the_program_of_the_locks_reads_fields_where_this_kernel_has_them() -> None:
    text = locks.program(dlm_tracepoints(), 5 * MS)
    assert "if (w.ns - b->ns >= 5000000ULL) {" in text
    assert "bpf_probe_read_kernel(&w.status, 4, ctx + 28);" in text
    assert text.count("{") == text.count("}")
    bare = {name: Tracepoint("dlm", name, 1, ()) for name in locks.TRACEPOINTS}
    with pytest.raises(LookupError, match="dlm:dlm_lock_start of this kernel has no field ls_id"):
        locks.program(bare, 1)


# --- lines ------------------------------------------------------------------------------------------------------------


def test_lines_of_vcsdlm() -> None:
    got = vcsdlm.wait_line(wait(0, 523), Blame(480 * MS, (5 << 20 | 3,)), "one", "12:00:00.000")
    assert got.split() == ["12:00:00.000", "one", "r", "EX", "9", "app", "523.0", "480.0", "granted", "5.3"]
    assert vcsdlm.wait_line(wait(0, 5, status=-11), Blame(0, ()), "one", "t").split()[-2:] == ["EAGAIN", "-"]
    assert "waiting" in vcsdlm.wait_line(wait(0, 5, status=None), Blame(0, ()), "one", "t")
    ack = group("ack", 1, event=5 << 20 | 3, acked_event=5 << 20 | 3, acked_phase=1)
    assert vcsdlm.change_line(ack, "t").split() == ["t", "one", "*", "stop", "acknowledged,", "event", "5.3"]


def test_lines_of_vcssnoop_have_words_for_numbers() -> None:
    fields: dict[str, int | str] = {
        "cluster": 1, "handle": "lab", "group": "dlm:one", "event": 5 << 20 | 3, "phase": 1, "acked_event": 0, "acked_phase": 0,
        "state": 2, "err": -110,
    }  # fmt: skip
    event = Event(1, "vcs_group_stop", 42, "vcsd", fields)
    assert details(event) == "group=dlm:one event=5.3 phase=stop acked_event=- acked_phase=none state=member err=ETIMEDOUT"
    assert vcssnoop.line(event, "t").split()[:5] == ["t", "42", "vcsd", "lab", "group_stop"]
    view = Event(1, "vcs_view_install", 42, "vcsd", {"handle": "lab", "generation": 4, "ring_seq": 8, "ring_rep": 1, "flags": 1, "nr": 3})
    assert details(view) == "generation=4 ring=8.1 flags=quorate nr=3"
    odd = Event(1, "vcs_group_call_enter", 42, "w", {"handle": "lab", "group": "g", "call": 2, "phase": 77})
    assert details(odd) == "group=g call=start phase=77"


def test_vcssnoop_leaves_out_what_was_not_asked_for() -> None:
    def asked(words: str) -> argparse.Namespace:
        return vcssnoop.parser().parse_args(words.split())

    event, refusal = group("stop", 0), Event(0, "vcs_refuse", 1, "x", {"cmd": 3, "err": -22, "why": "no"})
    assert vcssnoop.wanted(event, asked("-c lab -g dlm:one"))
    assert not vcssnoop.wanted(event, asked("-c other"))
    assert not vcssnoop.wanted(event, asked("-g dlm:two"))
    assert vcssnoop.wanted(refusal, asked("-c lab"))


@pytest.mark.parametrize("tool", [vcssnoop, vcslat, vcsdlm])
def test_the_examples_end_with_the_help(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = tool.parser().prog
    assert (ROOT / "tools" / f"{name}_example.txt").read_text().endswith(f"# {name} -h\n{tool.parser().format_help()}")
