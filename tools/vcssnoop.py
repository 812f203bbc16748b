# SPDX-License-Identifier: GPL-2.0-only
"""vcssnoop: a line for everything that happens in the kernel's cluster switch. See vcssnoop(8) and vcssnoop_example.txt."""

from __future__ import annotations

import argparse

from tools.attach import Tracer, run, vcs_tracepoints, wall_clock
from tools.tracepoints import Event
from tools.words import details

OFTEN = ("vcs_lease_renew",)
"Several times a second and never news."
LINE = "{:<12} {:<8} {:<15} {:<12} {:<18} {}"


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(prog="vcssnoop", description="A line for each event in the kernel's cluster switch.")
    words.add_argument("-c", "--cluster", metavar="HANDLE", default="", help="only this cluster's events (and refusals, which name none)")
    words.add_argument("-g", "--group", metavar="NAME", default="", help="only this group's events")
    words.add_argument("-e", "--event", metavar="NAME", action="append", default=[],
                       help="only this tracepoint (group_stop, view_install...); may be repeated")
    words.add_argument("-a", "--all", action="store_true", help="also renewals of the lease, several a second")
    words.add_argument("-d", "--duration", metavar="SECONDS", type=float, default=0.0, help="end after so many seconds")
    return words


def wanted(event: Event, options: argparse.Namespace) -> bool:
    """Whether the options ask for this event."""
    if options.group and event.text("group") != options.group:
        return False
    return not options.cluster or event.text("handle") in ("", options.cluster)


def line(event: Event, when: str) -> str:
    return LINE.format(when, event.pid, event.comm, event.text("handle") or "-", event.name.removeprefix("vcs_"), details(event)).rstrip()


def main() -> None:
    options = parser().parse_args()
    names = [f"vcs_{name.removeprefix('vcs_')}" for name in options.event]
    found = vcs_tracepoints(names)
    tracer = Tracer([t for name, t in found.items() if names or options.all or name not in OFTEN])
    clock = wall_clock()
    print(LINE.format("TIME", "PID", "COMM", "CLUSTER", "EVENT", "DETAILS"), flush=True)
    for record in tracer.records(options.duration):
        if record is not None and wanted(event := tracer.event(record), options):
            print(line(event, clock(event.ns)), flush=True)
    tracer.say_lost()


if __name__ == "__main__":
    run(main)
