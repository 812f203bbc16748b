# SPDX-License-Identifier: GPL-2.0-only
"""The netlink fuzzer's messages: the same from the same seed, right when nothing is spoiled, and wrong otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from tests.kernel.fuzz.spec_fuzz import DOS, DUMPS, RECORD, REOPEN, Fuzzer
from vcs.errors import SwitchError
from vcs.genl import HEADER
from vcs.netlink import codec

FAMILY = 30


def bodies(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size, _sock, _slot, flags, _unused = RECORD.unpack_from(data, at)
        at += RECORD.size + size
        if flags != REOPEN:
            yield data[at - size : at]


def decoded(body: bytes) -> str:
    """The command's name. Raises SwitchError."""
    name, _values = codec().decode(memoryview(HEADER.pack(HEADER.size + len(body), FAMILY, 0, 1, 0) + body))
    return name


def test_one_seed_one_course() -> None:
    assert Fuzzer(3).records(300) == Fuzzer(3).records(300) != Fuzzer(4).records(300)


def test_what_is_not_spoiled_is_well_formed_and_reaches_every_command() -> None:
    said = [decoded(body) for body in bodies(Fuzzer(1, wrong=0).records(3000))]
    assert len(said) >= 3000
    assert set(said) == {*DOS, *(op.name for op in DUMPS)}


def test_what_is_spoiled_is_often_malformed() -> None:
    wrong = 0
    for body in bodies(Fuzzer(1, wrong=1).records(1000)):
        try:
            decoded(body)
        except (SwitchError, IndexError, UnicodeDecodeError):
            wrong += 1
    assert 100 < wrong < 900
