# SPDX-License-Identifier: GPL-2.0-only
"""vcsdlm: who waits for the DLM's locks, and which change of membership is to blame. See vcsdlm(8) and vcsdlm_example.txt."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import locks
from tools.attach import Tracer, Unavailable, run, tracepoints, vcs_tracepoints, wall_clock
from tools.locks import Blame, Stops, Wait
from tools.tracepoints import Event
from tools.words import word
from vcs.model import event_text

TRACEPOINTS = tuple(f"vcs_group_{name}" for name in ("join", "stop", "start", "ack", "finish", "left", "lost"))
LINE = "{:<12} {:<16} {:<26} {:<4} {:<8} {:<15} {:>9} {:>9} {:<8} {}"
HEAD = LINE.format("TIME", "LOCKSPACE", "RESOURCE", "MODE", "PID", "COMM", "WAIT(ms)", "STOP(ms)", "RESULT", "EVENT")
DLM = Path("/sys/kernel/dlm")


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(prog="vcsdlm", description="Waits for DLM locks, and what of each a change of membership took.")
    words.add_argument("-m", "--min", metavar="MS", type=float, default=10.0, help="only waits of so many milliseconds or more (10)")
    words.add_argument("-l", "--lockspace", metavar="NAME", default="", help="only this lockspace")
    words.add_argument("-w", "--waits", action="store_true", help="only waits, no lines for the changes")
    words.add_argument("-b", "--blamed", action="store_true", help="only waits that a change is to blame for")
    words.add_argument("-d", "--duration", metavar="SECONDS", type=float, default=0.0, help="end after so many seconds")
    return words


def wait_line(wait: Wait, blame: Blame, name: str, when: str) -> str:
    events = ",".join(event_text(event) for event in blame.events) or "-"
    took, stopped, told = f"{wait.ns / 1e6:.1f}", f"{blame.ns / 1e6:.1f}", locks.result_text(wait.status)
    return LINE.format(when, name, wait.resource_text(), wait.mode_text(), wait.pid, wait.comm, took, stopped, told, events)


def change_line(event: Event, when: str) -> str:
    """A change of a lockspace, among the waits."""
    what = event.name.removeprefix("vcs_group_")
    if what == "ack":
        what = f"{word(event, 'acked_phase')} acknowledged"
    return f"{when:<12} {event.text('group').removeprefix(locks.PREFIX):<16} * {what}, event {word(event, 'event')}"


def still_waiting(bpf: Any, now_ns: int, least_ns: int) -> Iterator[Wait]:
    """Requests that have no answer yet. Those of a process that is gone never get one."""
    for key, value in bpf["begun"].items():
        if now_ns - value.ns >= least_ns and Path(f"/proc/{value.pid}").exists():
            name = bytes(value.res)[: value.len]
            yield Wait(value.ns, now_ns, key.ls, key.lkb, value.mode, None, name, value.pid, value.comm.decode("utf-8", "backslashreplace"))


def main() -> None:
    options = parser().parse_args()
    least = int(options.min * 1e6)
    dlm = tracepoints("dlm", "as root: `modprobe dlm`", locks.TRACEPOINTS)
    try:
        program = locks.program(dlm, least)
    except LookupError as error:
        raise Unavailable(str(error)) from error
    tracer = Tracer(
        list(vcs_tracepoints(TRACEPOINTS).values()), program,
        [(f"dlm:{name}", f"on_{name}") for name in locks.TRACEPOINTS], [(name, "on_entry") for name in locks.ENTRIES],
    )
    stops, clock = Stops(), wall_clock()
    for folder in DLM.iterdir() if DLM.is_dir() else ():
        stops.learn(folder.name)

    def show(wait: Wait) -> None:
        name, blame = stops.name_of(wait.lockspace), stops.blame(wait)
        if options.lockspace in ("", name) and (blame.ns or not options.blamed):
            print(wait_line(wait, blame, name, clock(wait.ended_ns)), flush=True)

    print(HEAD, flush=True)
    for record in filter(None, tracer.records(options.duration)):
        ns, number, pid, comm, body = record
        if number == locks.WAIT_ID:
            show(locks.read_wait(ns, pid, comm, body))
            continue
        event = tracer.event(record)
        mine = options.lockspace in ("", event.text("group").removeprefix(locks.PREFIX))
        if stops.feed(event) and mine and not options.waits:
            print(change_line(event, clock(ns)), flush=True)
    for wait in still_waiting(tracer.bpf, time.monotonic_ns(), least):
        show(wait)
    tracer.say_lost()


if __name__ == "__main__":
    run(main)
