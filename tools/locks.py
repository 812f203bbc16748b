# SPDX-License-Identifier: GPL-2.0-only
"""Waits for the DLM's locks, and how much of each a change of membership is to blame for. Pure.

The kernel's side keeps when each lock was asked for and sends those that took long. A lockspace gives no lock from the moment that its
group is ordered to stop until its consumer acknowledges the start: what of a wait lies in between is that event's.

The DLM's first tracepoint of a request lies behind the semaphore that keeps requests out of a stopped lockspace, so a wait begins at the
entry of the function instead (ENTRIES, kprobes).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from dlm_glue.state import global_id
from tools.tracepoints import HEADER, Event, Tracepoint
from vcs.model import Phase

WAIT_ID = 0
"In a record's header: a wait. No tracepoint has this id."
RES_MAX = 64
"DLM_RESNAME_MAXLEN."
BODY = struct.Struct(f"=QIIiIiI{RES_MAX}s")
"begun (CLOCK_MONOTONIC, ns), lockspace's id, lock's id, mode, the answer's flags and status, length of the name, name."
SB_FLAGS_MAX, ECANCEL, EUNLOCK = 7, 0x10001, 0x10002
"DLM_SBF_* together, DLM_ECANCEL, DLM_EUNLOCK."
PREFIX = "dlm:"
"Before a lockspace's name in that of its group."
KEEP = 256
"Stops that are remembered, of each lockspace."
ENTRIES = ("dlm_lock", "dlm_user_request", "dlm_user_convert")
"Where kernel and programs enter the DLM with a request."
TRACEPOINTS = ("dlm_lock_start", "dlm_lock_end", "dlm_ast")
MODES = ("NL", "CR", "CW", "PR", "PW", "EX")


@dataclass(frozen=True, slots=True)
class Wait:
    """A lock that was waited for, or still is (``status`` is None)."""

    begun_ns: int
    ended_ns: int
    lockspace: int
    "The id."
    lock: int
    mode: int
    status: int | None
    "What the caller was told: 0, or a negative errno."
    resource: bytes
    pid: int
    comm: str

    @property
    def ns(self) -> int:
        return self.ended_ns - self.begun_ns

    def mode_text(self) -> str:
        return MODES[self.mode] if 0 <= self.mode < len(MODES) else str(self.mode)

    def resource_text(self) -> str:
        """Printable names as they are (GFS2's have spaces: they are squeezed), others in hex."""
        name = self.resource.rstrip(b"\0")
        text = name.decode("ascii", "replace")
        return "_".join(text.split()) if text.isprintable() and text.strip() else name.hex() or "-"


@dataclass(slots=True)
class Stopped:
    """One span of time in which a lockspace gave no lock."""

    event: int
    "The newest event of it."
    begun_ns: int
    ended_ns: int = 0
    "0: not yet over."


@dataclass(frozen=True, slots=True)
class Blame:
    """Of one wait."""

    ns: int
    "Of it, how long the lockspace was stopped."
    events: tuple[int, ...]


@dataclass(slots=True)
class Stops:
    """When which lockspace was stopped."""

    spans: dict[str, list[Stopped]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    "Lockspace's id -> name."

    def learn(self, name: str) -> None:
        self.names[global_id(name)] = name

    def name_of(self, lockspace: int) -> str:
        return self.names.get(lockspace, f"{lockspace:08x}")

    def feed(self, event: Event) -> bool:
        """Take a tracepoint in; whether it is about a lockspace's change."""
        group = event.text("group")
        if not group.startswith(PREFIX):
            return False
        name = group.removeprefix(PREFIX)
        self.learn(name)
        spans = self.spans.setdefault(name, [])
        last = spans[-1] if spans and not spans[-1].ended_ns else None
        if event.name == "vcs_group_stop":
            if last is None:
                spans.append(Stopped(event.number("event"), event.ns))
                del spans[:-KEEP]
            else:
                last.event = event.number("event")
            return True
        started = event.name == "vcs_group_ack" and event.number("acked_phase") == Phase.START
        if last is not None and (started or event.name in ("vcs_group_finish", "vcs_group_left")):
            last.ended_ns = event.ns
        return event.name in ("vcs_group_start", "vcs_group_ack", "vcs_group_finish", "vcs_group_left", "vcs_group_lost", "vcs_group_join")

    def blame(self, wait: Wait) -> Blame:
        """How much of ``wait`` was a stop of its lockspace. A stop that is not over counts up to the wait's end."""
        total, events = 0, []
        for span in self.spans.get(self.name_of(wait.lockspace), []):
            inside = min(span.ended_ns or wait.ended_ns, wait.ended_ns) - max(span.begun_ns, wait.begun_ns)
            if inside > 0:
                total += inside
                events.append(span.event)
        return Blame(total, tuple(events))


def result_text(status: int | None) -> str:
    """The answer in a word."""
    words = {None: "waiting", 0: "granted", -errno.EDEADLK: "EDEADLK", -ECANCEL: "cancelled", -EUNLOCK: "unlocked"}
    return words[status] if status in words else errno.errorcode.get(-(status or 0), str(status))


def answer(status: int, flags: int) -> int:
    """The status that the caller was told: 0, or negative. Linux 6.12 hands the two to the tracepoint in the wrong order where a program
    reads its answer (device_read in fs/dlm/user.c), and of the status only the low byte is left then."""
    if status <= 0 and flags <= SB_FLAGS_MAX:
        return status
    low = flags - 256 if flags else 0
    return {-1: -ECANCEL, -2: -EUNLOCK}.get(low, low)


def read_wait(ns: int, pid: int, comm: str, body: bytes) -> Wait:
    """What the kernel's side sent. Raises ValueError if it is too short."""
    if len(body) < BODY.size:
        raise ValueError(f"a wait's record has {len(body)} bytes of {BODY.size}")
    begun, lockspace, lock, mode, flags, status, length, name = BODY.unpack_from(body)
    return Wait(begun, ns, lockspace, lock, mode, answer(status, flags), name[:length], pid, comm)


TABLES = f"""
struct lock_key {{ u32 ls; u32 lkb; }};
struct lock_begun {{ u64 ns; u32 pid; int mode; u32 len; char comm[16]; u8 res[{RES_MAX}]; }};
struct lock_wait {{
	u64 ns; u32 id; u32 pid; char comm[16];
	u64 begun; u32 ls; u32 lkb; int mode; u32 sb_flags; int status; u32 len; u8 res[{RES_MAX}];
}};
/* Least recently used: a request that fails at the door, or whose process dies, leaves its entry behind. */
BPF_TABLE("lru_hash", u32, u64, entered, 16384);
BPF_TABLE("lru_hash", struct lock_key, struct lock_begun, begun, 65536);

int on_entry(void *ctx)
{{
	u32 thread = bpf_get_current_pid_tgid();
	u64 now = bpf_ktime_get_ns();

	entered.update(&thread, &now);
	return 0;
}}
"""


def _read(dlm: Mapping[str, Tracepoint], tracepoint: str, name: str, into: str) -> str:
    place = dlm[tracepoint].field(name)
    return f"bpf_probe_read_kernel(&{into}, {place.size}, ctx + {place.offset});"


def _key(dlm: Mapping[str, Tracepoint], tracepoint: str) -> str:
    return f"{_read(dlm, tracepoint, 'ls_id', 'k.ls')}\n\t{_read(dlm, tracepoint, 'lkb_id', 'k.lkb')}"


def _on_start(dlm: Mapping[str, Tracepoint]) -> str:
    return f"""
int on_dlm_lock_start(void *ctx)
{{
	struct lock_key k = {{}};
	struct lock_begun b = {{}};
	u32 thread = bpf_get_current_pid_tgid();
	u64 *since = entered.lookup(&thread);
	u32 loc = 0;

	b.ns = since ? *since : bpf_ktime_get_ns();
	entered.delete(&thread);
	{_key(dlm, "dlm_lock_start")}
	{_read(dlm, "dlm_lock_start", "mode", "b.mode")}
	{_read(dlm, "dlm_lock_start", "res_name", "loc")}
	b.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(&b.comm, sizeof(b.comm));
	b.len = loc >> 16;
	if (b.len > {RES_MAX})
		b.len = {RES_MAX};
	bpf_probe_read_kernel(b.res, {RES_MAX}, ctx + (loc & 0xffff));
	begun.update(&k, &b);
	return 0;
}}
"""


def _on_end(dlm: Mapping[str, Tracepoint]) -> str:
    return f"""
int on_dlm_lock_end(void *ctx)
{{
	struct lock_key k = {{}};
	int error = 0;

	{_key(dlm, "dlm_lock_end")}
	{_read(dlm, "dlm_lock_end", "error", "error")}
	if (error)
		begun.delete(&k);
	return 0;
}}
"""


def _on_ast(dlm: Mapping[str, Tracepoint], least_ns: int) -> str:
    return f"""
int on_dlm_ast(void *ctx)
{{
	struct lock_key k = {{}};
	struct lock_wait w = {{}};
	struct lock_begun *b;

	{_key(dlm, "dlm_ast")}
	b = begun.lookup(&k);
	if (!b)
		return 0;
	w.ns = bpf_ktime_get_ns();
	if (w.ns - b->ns >= {least_ns}ULL) {{
		{_read(dlm, "dlm_ast", "sb_status", "w.status")}
		{_read(dlm, "dlm_ast", "sb_flags", "w.sb_flags")}
		w.id = {WAIT_ID};
		w.pid = b->pid;
		__builtin_memcpy(w.comm, b->comm, sizeof(w.comm));
		w.begun = b->ns;
		w.ls = k.ls;
		w.lkb = k.lkb;
		w.mode = b->mode;
		w.len = b->len;
		__builtin_memcpy(w.res, b->res, sizeof(w.res));
		if (records.ringbuf_output(&w, {HEADER.size + BODY.size}, 0))
			count_lost();
	}}
	begun.delete(&k);
	return 0;
}}
"""


def program(dlm: Mapping[str, Tracepoint], least_ns: int) -> str:
    """C for bcc, behind tracepoints.program(): sends every wait of at least ``least_ns``. Raises LookupError for a kernel whose
    tracepoints lack a field."""
    return TABLES + _on_start(dlm) + _on_end(dlm) + _on_ast(dlm, least_ns)
