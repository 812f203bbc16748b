# SPDX-License-Identifier: GPL-2.0-only
"""Question and answer between a node and the witness: what is inside of a sealed frame. Pure.

    Ask     kind u8 | flags u8 | number u64 | witness u64 | seq u64 | rep u32 | term u64 | timeout u32 | members u16 | others u16 | u32 each
    Answer  kind u8 | verdict u8 | number u64 | witness u64 | engine u64 | term u64 | seq u64 | rep u32 | left u32 | timeout u32

``witness`` is the incarnation of the witness's process, which a question has to name: what was recorded before that process began is worth
nothing. ``engine`` is the asker's, which an answer has to name for the same reason. Within one process the frame's counter and the
question's number tell old from new.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from vcs.errors import RemoteError
from vcs.model import RingId

NODEID: Final = (1 << 32) - 1
"The witness's own, in its frames. It is no node, and its keys are its own whoever has this id."
PURPOSE: Final = b"vcs witness 1"
"Its ciphers are not the engine's."
FRAME_MAX: Final = 16384
"Bytes of a frame; what is longer is no question."
MEMBERS_MAX: Final = 1024
_ASK, _ANSWER = 1, 2
_WANTED = 1
_ASK_HEAD = struct.Struct(">BBQQQIQIHH")
_ANSWER_ALL = struct.Struct(">BBQQQQQIII")
_U32_LAST = (1 << 32) - 1


class Verdict(IntEnum):
    GRANTED = 1
    HELD = 2
    "Another configuration has it."
    WAIT = 3
    "Nobody has it yet; who else wants it may be better."
    STARTING = 4
    "The witness does not know what it granted before it was started."
    NOTED = 5
    "Nothing was asked for."
    HELLO = 6
    "The question does not name this process of the witness: ask again."
    TIMEOUT = 7
    "The witness has another timeout_ms."


@dataclass(frozen=True, slots=True)
class Ask:
    number: int
    wanted: bool
    witness: int
    ring: RingId
    members: tuple[int, ...]
    "Rising. Empty: the asker is in no primary configuration and only looks whether anybody answers."
    others: tuple[int, ...]
    term: int
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    number: int
    verdict: Verdict
    witness: int
    engine: int
    term: int = 0
    holder: RingId = RingId(0, 0)  # noqa: RUF009 (a value, never changed)
    left_ms: int = 0
    timeout_ms: int = 0


def encode_ask(ask: Ask) -> bytes:
    head = _ASK_HEAD.pack(_ASK, _WANTED * ask.wanted, ask.number, ask.witness, ask.ring.seq, ask.ring.rep, ask.term, ask.timeout_ms,
                          len(ask.members), len(ask.others))
    return head + struct.pack(f">{len(ask.members) + len(ask.others)}I", *ask.members, *ask.others)


def decode_ask(body: bytes) -> Ask:
    """Raises RemoteError."""
    if len(body) < _ASK_HEAD.size:
        raise RemoteError("short question")
    kind, flags, number, witness, seq, rep, term, timeout, nr_members, nr_others = _ASK_HEAD.unpack_from(body)
    if kind != _ASK or flags & ~_WANTED or nr_members + nr_others > MEMBERS_MAX:
        raise RemoteError("no question")
    if len(body) != _ASK_HEAD.size + 4 * (nr_members + nr_others):
        raise RemoteError("a question of another length than it says")
    ids = struct.unpack_from(f">{nr_members + nr_others}I", body, _ASK_HEAD.size)
    members, others = ids[:nr_members], ids[nr_members:]
    if list(members) != sorted(set(members)) or len({*ids}) != len(ids) or 0 in ids or (flags & _WANTED and not members):
        raise RemoteError("the nodes of a question are not sorted and different")
    return Ask(number, bool(flags & _WANTED), witness, RingId(seq, rep), members, others, term, timeout)


def encode_answer(answer: Answer) -> bytes:
    return _ANSWER_ALL.pack(_ANSWER, answer.verdict, answer.number, answer.witness, answer.engine, answer.term, answer.holder.seq,
                            answer.holder.rep, min(answer.left_ms, _U32_LAST), answer.timeout_ms)


def decode_answer(body: bytes) -> Answer:
    """Raises RemoteError."""
    if len(body) != _ANSWER_ALL.size:
        raise RemoteError("an answer of another length")
    kind, verdict, number, witness, engine, term, seq, rep, left, timeout = _ANSWER_ALL.unpack(body)
    if kind != _ANSWER or verdict not in set(Verdict):
        raise RemoteError("no answer")
    return Answer(number, Verdict(verdict), witness, engine, term, RingId(seq, rep), left, timeout)
