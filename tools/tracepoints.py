# SPDX-License-Identifier: GPL-2.0-only
"""What a tracepoint's record holds, by the kernel's own description of it (``format`` in tracefs), and the BPF program that brings
records here. Pure.

The program copies each record whole and looks at nothing: a tracepoint that a later kernel module adds, or a field, needs no change here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

RAW_MAX = 384
"Bytes of a record that are brought; a BPF program has a stack of 512."
HEADER = struct.Struct("=QII16s")
"What stands before every record: CLOCK_MONOTONIC in ns, the tracepoint's id, process id, name of the thread."
COMMON = "common_"
"The fields that every tracepoint has. Their place holds something else while a BPF program looks."


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record."""

    name: str
    offset: int
    "In bytes from the record's begin."
    size: int
    "In bytes."
    signed: bool
    array: bool
    dynamic: bool = False
    "The field holds where in the record (low half) and how long (high half) the value is."


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """One tracepoint as this kernel has it."""

    system: str
    name: str
    id: int
    fields: tuple[Field, ...]

    @property
    def size(self) -> int:
        """Bytes up to the end of the last fixed field."""
        return max((f.offset + f.size for f in self.fields), default=0)

    def field(self, name: str) -> Field:
        """Raises LookupError that names both."""
        for field in self.fields:
            if field.name == name:
                return field
        raise LookupError(f"the tracepoint {self.system}:{self.name} of this kernel has no field {name}")

    def decode(self, raw: bytes) -> dict[str, int | str]:
        """The record's own fields. Raises ValueError if it is too short."""
        if len(raw) < self.size:
            raise ValueError(f"a record of {self.system}:{self.name} has {len(raw)} bytes of {self.size}")
        return {f.name: _value(f, raw) for f in self.fields if not f.name.startswith(COMMON)}


@dataclass(frozen=True, slots=True)
class Event:
    """One record that was brought."""

    ns: int
    "CLOCK_MONOTONIC."
    name: str
    pid: int
    comm: str
    fields: Mapping[str, int | str]

    def text(self, field: str) -> str:
        return str(self.fields.get(field, ""))

    def number(self, field: str) -> int:
        value = self.fields.get(field, 0)
        return value if isinstance(value, int) else 0


_LINE = re.compile(r"\s*field:([^;]*);\s*offset:(\d+);\s*size:(\d+);\s*signed:([01]);")


def parse_format(system: str, text: str) -> Tracepoint:
    """A tracepoint's ``format`` file. Raises ValueError for what is none."""
    name, number = re.search(r"^name: (\S+)$", text, re.M), re.search(r"^ID: (\d+)$", text, re.M)
    if name is None or number is None:
        raise ValueError(f"no format of a tracepoint of {system}: {text[:60]!r}")
    fields = []
    for declaration, offset, size, signed in _LINE.findall(text):
        words = re.sub(r"\[[^]]*\]", "", declaration).split()
        dynamic = words[0] in ("__data_loc", "__rel_loc")
        fields.append(Field(words[-1], int(offset), int(size), signed == "1", "[" in declaration and not dynamic, dynamic))
    return Tracepoint(system, name[1], int(number[1]), tuple(fields))


def _value(field: Field, raw: bytes) -> int | str:
    part = raw[field.offset : field.offset + field.size]
    if field.array:
        return part.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    return int.from_bytes(part, "little", signed=field.signed)


def read_header(data: bytes) -> tuple[int, int, int, str, bytes]:
    """(ns, id, pid, comm, the rest) of what the program sent. Raises ValueError if it is too short."""
    if len(data) < HEADER.size:
        raise ValueError(f"a record of {len(data)} bytes has no header")
    ns, number, pid, comm = HEADER.unpack_from(data)
    return ns, number, pid, comm.split(b"\0", 1)[0].decode("utf-8", "backslashreplace"), data[HEADER.size :]


PRELUDE = f"""
#include <uapi/linux/ptrace.h>

BPF_RINGBUF_OUTPUT(records, 64);
BPF_ARRAY(lost, u64, 1);

struct record {{
	u64 ns;
	u32 id;
	u32 pid;
	char comm[16];
	u8 raw[{RAW_MAX}];
}};

static __always_inline void count_lost(void)
{{
	int zero = 0;
	u64 *n = lost.lookup(&zero);

	if (n)
		__sync_fetch_and_add(n, 1);
}}
"""


def program(wanted: Iterable[Tracepoint]) -> str:
    """C for bcc: a function ``on_<name>`` for each tracepoint. Raises ValueError for a record that is too large."""
    parts = [PRELUDE]
    for tracepoint in wanted:
        if tracepoint.size > RAW_MAX:
            raise ValueError(f"a record of {tracepoint.system}:{tracepoint.name} has {tracepoint.size} bytes, {RAW_MAX} can be brought")
        parts.append(f"""
int on_{tracepoint.name}(void *ctx)
{{
	struct record r = {{}};

	r.ns = bpf_ktime_get_ns();
	r.id = {tracepoint.id};
	r.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(&r.comm, sizeof(r.comm));
	bpf_probe_read_kernel(r.raw, {tracepoint.size}, ctx);
	if (records.ringbuf_output(&r, {HEADER.size + tracepoint.size}, 0))
		count_lost();
	return 0;
}}
""")
    return "".join(parts)
