# SPDX-License-Identifier: GPL-2.0-only
"""The tools' way to the kernel: tracefs, bcc, and the loop that brings records. Nothing else here knows bcc."""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from tools.tracepoints import Event, Tracepoint, parse_format, program, read_header

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
POLL_MS = 200
"How often the loop looks whether it is to end; records are brought at once."


QUIET = ["-Wno-ignored-attributes", "-Wno-duplicate-decl-specifier"]
"What bcc's compiler has to say of newer kernels' headers."


class Unavailable(Exception):
    """This machine cannot do it; the text has the remedy."""


def tracepoints(system: str, remedy: str, names: Sequence[str] = ()) -> dict[str, Tracepoint]:
    """The tracepoints of ``system`` by name, all of them or ``names``. Raises Unavailable with ``remedy``."""
    for root in TRACEFS:
        folder = root / "events" / system
        if folder.is_dir():
            present = sorted(path.name for path in folder.iterdir() if path.is_dir())
            if absent := set(names).difference(present):
                raise Unavailable(f"this kernel's {system} has no tracepoint {', '.join(sorted(absent))}; it has {', '.join(present)}")
            found = names or present
            try:
                return {name: parse_format(system, (folder / name / "format").read_text("ascii")) for name in found}
            except (OSError, ValueError) as error:
                raise Unavailable(f"{folder}: {error}") from error
    raise Unavailable(f"this kernel shows no tracepoints of {system}; {remedy}")


def vcs_tracepoints(names: Sequence[str] = ()) -> dict[str, Tracepoint]:
    return tracepoints("vcs", "as root: `modprobe vcs`", names)


class Tracer:
    """A program in the kernel, with everything attached that it has a function for."""

    def __init__(self, wanted: Sequence[Tracepoint], more: str = "", others: Sequence[tuple[str, str]] = (),
                 entries: Sequence[tuple[str, str]] = ()) -> None:
        """``others`` are further tracepoints ("system:name") and ``entries`` functions of the kernel, with their functions in ``more``.

        Raises Unavailable.
        """
        try:
            from bcc import BPF
        except ImportError as error:
            raise Unavailable(f"{error}; install the package python3-bpfcc") from error
        self._by_id = {t.id: t for t in wanted}
        self._stop = False
        try:
            self.bpf: Any = BPF(text=program(wanted) + more, cflags=QUIET)
            for tracepoint in wanted:
                self.bpf.attach_tracepoint(tp=f"{tracepoint.system}:{tracepoint.name}", fn_name=f"on_{tracepoint.name}")
            for name, function in others:
                self.bpf.attach_tracepoint(tp=name, fn_name=function)
            for name, function in entries:
                self.bpf.attach_kprobe(event=name, fn_name=function)
        except Exception as error:  # bcc raises bare Exceptions
            raise Unavailable(f"bcc: {error}; is this root, and are the kernel's headers installed?") from error
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def records(self, seconds: float = 0.0, every: float = 0.0) -> Iterator[tuple[int, int, int, str, bytes] | None]:
        """(ns, id, pid, comm, body) of each record; None every ``every`` seconds. Ends after ``seconds`` (0: never) and upon
        SIGINT or SIGTERM; what the kernel had sent before is brought first."""
        arrived: list[tuple[int, int, int, str, bytes]] = []

        def take(_context: object, data: int, size: int) -> int:
            arrived.append(read_header(ctypes.string_at(data, size)))
            return 0

        self.bpf["records"].open_ring_buffer(take)
        print("Tracing... Hit Ctrl-C to end.", file=sys.stderr, flush=True)
        begun = last = time.monotonic()
        while True:
            now = time.monotonic()
            over = self._stop or bool(seconds and now - begun >= seconds)
            if over:
                self.bpf.ring_buffer_consume()
            else:
                self.bpf.ring_buffer_poll(POLL_MS)
            yield from sorted(arrived, key=lambda record: record[0])
            arrived.clear()
            if over:
                return
            if every and now - last >= every:
                last = now
                yield None

    def event(self, record: tuple[int, int, int, str, bytes]) -> Event:
        """A record of one of the tracepoints that were wanted. Raises KeyError for another."""
        ns, number, pid, comm, body = record
        tracepoint = self._by_id[number]
        return Event(ns, tracepoint.name, pid, comm, tracepoint.decode(body))

    def lost(self) -> int:
        """Records that found no room."""
        return sum(int(value.value) for value in self.bpf["lost"].values())

    def say_lost(self) -> None:
        if count := self.lost():
            print(f"{count} records were lost: this process was too slow", file=sys.stderr)


def wall_clock() -> Callable[[int], str]:
    """CLOCK_MONOTONIC in ns -> the time of day, by the clocks as they are now."""
    offset = time.time_ns() - time.monotonic_ns()

    def text(ns: int) -> str:
        whole = ns + offset
        return f"{time.strftime('%H:%M:%S', time.localtime(whole // 1_000_000_000))}.{whole // 1_000_000 % 1000:03d}"

    return text


def run(main: Callable[[], None]) -> None:
    """A tool's entry: what is not available is one line on stderr, and exit code 1."""
    try:
        main()
    except Unavailable as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
    except KeyboardInterrupt:  # before there was anything to end
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever reads has seen enough; nothing may be flushed to the closed pipe
        sys.exit(1)
