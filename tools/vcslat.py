# SPDX-License-Identifier: GPL-2.0-only
"""vcslat: how long each group takes to stop, to start and to recover, as histograms. See vcslat(8) and vcslat_example.txt."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tools.attach import Tracer, run, vcs_tracepoints
from tools.latency import KINDS, Latency, Took, histogram

TRACEPOINTS = tuple(f"vcs_group_{name}" for name in ("stop", "start", "finish", "ack", "left", "lost"))


def parser() -> argparse.ArgumentParser:
    kinds = "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())
    words = argparse.ArgumentParser(prog="vcslat", description=f"Histograms of each group's times. {kinds}.")
    words.add_argument("-c", "--cluster", metavar="HANDLE", default="", help="only this cluster")
    words.add_argument("-g", "--group", metavar="NAME", default="", help="only this group")
    words.add_argument("-m", "--milliseconds", action="store_true", help="milliseconds instead of microseconds")
    words.add_argument("-d", "--duration", metavar="SECONDS", type=float, default=0.0, help="end after so many seconds")
    words.add_argument("-i", "--interval", metavar="SECONDS", type=float, default=0.0, help="print, and begin anew, so often")
    return words


def report(times: Mapping[tuple[str, str, str], Sequence[int]], milliseconds: bool) -> list[str]:
    """The lines for every group and kind that has a time (ns)."""
    lines: list[str] = []
    for (handle, group, kind), values in sorted(times.items(), key=lambda item: (*item[0][:2], list(KINDS).index(item[0][2]))):
        divisor, unit = (1_000_000, "msecs") if milliseconds else (1000, "usecs")
        lines += ["", f"cluster = {handle}, group = {group}, {kind}", *histogram([v // divisor for v in values], unit)]
        lines.append(f"{len(values)} in all, mean {sum(values) // len(values) // divisor}, longest {max(values) // divisor} {unit}")
    return lines or ["", "no group has changed"]


def main() -> None:
    options = parser().parse_args()
    tracer, latency = Tracer(list(vcs_tracepoints(TRACEPOINTS).values())), Latency()
    times: dict[tuple[str, str, str], list[int]] = defaultdict(list)

    def wanted(took: Took) -> bool:
        return options.cluster in ("", took.handle) and options.group in ("", took.group)

    for record in tracer.records(options.duration, options.interval):
        if record is None:
            print("\n".join(report(times, options.milliseconds)), flush=True)
            times.clear()
            continue
        for took in filter(wanted, latency.feed(tracer.event(record))):
            times[took.handle, took.group, took.kind].append(took.ns)
    print("\n".join(report(times, options.milliseconds)), flush=True)
    tracer.say_lost()


if __name__ == "__main__":
    run(main)
