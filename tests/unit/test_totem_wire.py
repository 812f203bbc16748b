# SPDX-License-Identifier: GPL-2.0-only
"""The codec and the frame: what goes in comes out, and nothing else ever raises more than a RemoteError."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membership.api import Processor
from membership.totem import control, frames, wire
from membership.totem.aes import aes_gcm
from membership.totem.frames import SEQ_END
from membership.totem.limits import MEMBERS_MAX, PAYLOAD_MAX, PIECE_MAX, RING_SEQ_MAX
from membership.totem.peers import ReplayWindow
from membership.totem.seal import COUNTER_LAST, HEADER, FrameError, Sealer
from vcs.errors import ConfigError, RemoteError, VcsError
from vcs.model import RingId

u32 = st.integers(1, 2**32 - 1)
u64 = st.integers(1, 2**64 - 1)
places = st.integers(1, SEQ_END - 1)
rings = st.builds(RingId, st.integers(1, RING_SEQ_MAX - 1), u32)
processors = st.builds(Processor, u32, u64, u64)


def ascending(n: int) -> st.SearchStrategy[tuple[Processor, ...]]:
    return st.sets(processors, max_size=n).map(lambda s: tuple(sorted(s)))


@st.composite
def joins(draw: st.DrawFn) -> wire.Join:
    proc = draw(st.sets(processors, min_size=1, max_size=12))
    fail = draw(st.sets(st.sampled_from(sorted(proc)), max_size=len(proc) - 1)) if len(proc) > 1 else set()
    some = st.sets(st.sampled_from(sorted(proc)), max_size=len(proc)).map(lambda s: tuple(sorted(s)))
    choice = draw(st.sets(st.sampled_from(sorted(proc - fail)), min_size=1))
    pairs = draw(st.sets(st.tuples(st.sampled_from(sorted(proc)), st.sampled_from(sorted(proc)))))
    claims = tuple(sorted(c for c in pairs if c[0] != c[1]))
    heard = sorted({*draw(ascending(8)), *draw(some)})
    return wire.Join(draw(st.integers(0, RING_SEQ_MAX - 1)), draw(u64), tuple(sorted(proc)), tuple(sorted(fail)), tuple(heard),
                     tuple(sorted(choice)), draw(some), claims)


@st.composite
def beacons(draw: st.DrawFn) -> wire.Beacon:
    members = tuple(sorted(draw(st.sets(u32, min_size=1, max_size=6))))
    apart = draw(st.dictionaries(u32, st.integers(1, (1 << len(members)) - 1), max_size=5))
    return wire.Beacon(draw(rings), members, tuple(sorted(apart.items())), draw(ascending(8)))


nodeids = st.sets(u32, max_size=MEMBERS_MAX).map(lambda s: tuple(sorted(s)))
controls = (st.builds(control.Probe, u64) | st.builds(control.ProbeAck, u64) | st.builds(control.TokenAck, rings, u64)
            | st.builds(control.Alarm, u64, nodeids) | st.builds(control.Links, nodeids, st.booleans()))


@st.composite
def tokens(draw: st.DrawFn) -> frames.Token:
    rtr, at, who = [], 0, draw(u32)
    for gap, length in draw(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 40)), max_size=20)):
        rtr.append(frames.Range(who, at + gap, at + gap + length - 1, draw(st.integers(0, 255))))
        at += gap + length
    seq = at + draw(st.integers(0, 1000))
    return frames.Token(draw(rings), draw(places), seq, draw(st.integers(0, seq)), draw(u32), draw(u32), draw(u32), draw(st.booleans()),
                        rtr, draw(u32), draw(u32), draw(u32))


@st.composite
def commits(draw: st.DrawFn) -> wire.Commit:
    ids = sorted(draw(st.sets(u32, min_size=2, max_size=MEMBERS_MAX)))
    entries = tuple(
        wire.Entry(Processor(n, draw(u64), draw(u64)), draw(st.booleans()), draw(rings), draw(u64), draw(u64), draw(rings), draw(u64))
        for n in ids[:6])
    return wire.Commit(RingId(draw(st.integers(1, RING_SEQ_MAX - 1)), entries[0].processor.nodeid), draw(u64), entries)


messages = st.lists(st.binary(max_size=60), min_size=1, max_size=8)
fragments = st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=300)).map(
    lambda t: frames.Fragment(t[0] + len(t[1]) + 1, t[0], t[1]))
regulars = st.builds(frames.make_regular, rings, places, u32, st.booleans(), messages | fragments)
encapsulated = st.builds(frames.make_encapsulated, rings, places, u32, regulars)
large = st.builds(lambda ring, seq, data: frames.make_regular(ring, seq, 1, False, [data]), rings, places,
                  st.integers(PIECE_MAX, PAYLOAD_MAX - 4).map(lambda n: bytes(range(256)) * (n // 256) + bytes(n % 256)))
pieces = st.tuples(large, st.randoms()).map(lambda t: wire.decode(t[1].choice(frames.cut(t[0]))))
bodies = (regulars | encapsulated | tokens() | pieces | joins() | commits() | beacons() | controls
          | st.builds(wire.Leave, rings, st.booleans()) | st.builds(wire.Hurry, rings))


def fields(m: object) -> object:
    if isinstance(m, frames.Regular | frames.Token):
        return tuple(fields(getattr(m, name)) for name in type(m).__slots__ if not name.startswith("_"))
    return m


@given(bodies)
def test_round_trip(message: wire.Body) -> None:
    encoded = wire.encode(message)
    again = wire.decode(encoded)
    assert type(again) is type(message)
    assert fields(again) == fields(message)
    assert wire.encode(again) == encoded
    if isinstance(again, frames.Regular) and isinstance(message, frames.Regular):
        assert list(again.content()) == list(message.content())


@given(st.integers(SEQ_END, 2**64 - 1), st.data())
def test_a_place_beyond_the_last_is_refused(seq: int, data: st.DataObject) -> None:
    """A frame, a piece, a token: one more than any number a ring can reach must still fit its field."""
    regular = data.draw(regulars)
    piece = frames.Piece(regular.ring, seq, PIECE_MAX + 1, 0, bytes(PIECE_MAX))
    token = frames.Token(regular.ring, seq, 0, 0, 0, 0, 0, False, [], 0, 0, 0)
    for bad in (wire.encode(frames.make_regular(regular.ring, seq, 1, False, [b"x"])), frames.encode_piece(piece), wire.encode(token)):
        with pytest.raises(RemoteError):
            wire.decode(bad)


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_valid(data: bytes) -> None:
    try:
        message = wire.decode(data)
    except RemoteError:
        return
    assert wire.encode(message) == data


@given(bodies, st.data())
def test_truncated_and_changed(message: wire.Body, data: st.DataObject) -> None:
    encoded = wire.encode(message)
    cut = encoded[:data.draw(st.integers(0, len(encoded) - 1))]
    at = data.draw(st.integers(0, len(encoded) - 1))
    changed = encoded[:at] + bytes([encoded[at] ^ data.draw(st.integers(1, 255))]) + encoded[at + 1:]
    for bad in (cut, changed, encoded + b"\0"):
        try:
            again = wire.decode(bad)
        except RemoteError:
            continue
        assert wire.encode(again) == bad


def test_hostile_counts_are_refused() -> None:
    """CVE-2026-35092 of another implementation: the sum of two counts of a Join wraps."""
    me = Processor(1, 1, 1)
    good = wire.encode(wire.Join(4, 1, (me,), (), (), (me,), (), ()))
    assert wire.decode(good)
    for counts in ((0xFFFF, 0xFFFF, 0), (0, 1, 0), (2, 0, 0), (1, 0, 1), (0, 0, 0xFFFF)):
        bad = good[:17] + b"".join(n.to_bytes(2, "big") for n in counts) + good[23:]
        with pytest.raises(RemoteError):
            wire.decode(bad)


def sealers() -> tuple[Sealer, Sealer, Processor]:
    a, b = Processor(1, 11, 111), Processor(2, 22, 222)
    return Sealer("alpha", a, aes_gcm(b"k" * 32)), Sealer("alpha", b, aes_gcm(b"k" * 32)), a


@given(st.binary(max_size=PAYLOAD_MAX))
@settings(max_examples=50)
def test_sealed_frame_opens(body: bytes) -> None:
    a, b, who = sealers()
    assert b.open(a.seal(body)) == (who, 1, body)
    assert b.open(a.seal(body)) == (who, 2, body)


@given(st.data())
def test_any_changed_bit_is_refused(data: st.DataObject) -> None:
    a, b, _ = sealers()
    frame = a.seal(b"body of a frame")
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        b.open(bytes(changed))


@given(st.binary(max_size=200))
def test_garbage_frames(data: bytes) -> None:
    _, b, _ = sealers()
    with pytest.raises(FrameError):
        b.open(data)


@pytest.mark.parametrize(("change", "reason"), [
    (lambda f: f[:HEADER.size + 3], "short"),
    (lambda f: b"XX" + f[2:], "magic"),
    (lambda f: f[:2] + b"\x09" + f[3:], "version"),
    (lambda f: f[:-1] + bytes([f[-1] ^ 1]), "seal"),
])
def test_reasons(change: object, reason: str) -> None:
    a, b, _ = sealers()
    with pytest.raises(FrameError) as e:
        b.open(change(a.seal(b"x")))  # type: ignore[operator]
    assert e.value.reason == reason


def test_another_cluster_and_another_key() -> None:
    a, _, who = sealers()
    frame = a.seal(b"x")
    with pytest.raises(FrameError, match="cluster"):
        Sealer("beta", who, aes_gcm(b"k" * 32)).open(frame)
    with pytest.raises(FrameError, match="key"):
        Sealer("alpha", who, aes_gcm(b"K" * 32)).open(frame)
    same_id = next(k for k in (i.to_bytes(32, "big") for i in range(10_000)) if aes_gcm(k).key_id == aes_gcm(b"k" * 32).key_id)
    with pytest.raises(FrameError, match="seal"):
        Sealer("alpha", who, aes_gcm(same_id)).open(frame)
    with pytest.raises(ConfigError, match="share an id"):
        Sealer("alpha", who, aes_gcm(same_id), aes_gcm(b"k" * 32))
    with pytest.raises(VcsError, match="32"):
        aes_gcm(b"short")


def test_keys_are_rotated_without_a_gap() -> None:
    """Each node in turn: accept the new key, then use it, then drop the old one."""
    old, new = aes_gcm(b"k" * 32), aes_gcm(b"n" * 32)
    a, b, who = sealers()
    recorded = a.seal(b"recorded")
    for change in ((a, old, new), (b, old, new), (a, new, old), (b, new, old), (a, new), (b, new)):
        change[0].rekey(*change[1:])
        assert b.open(a.seal(b"to b"))[2] == b"to b" and a.open(b.seal(b"to a"))[2] == b"to a"
    assert a.seal(b"")[3] == new.key_id
    with pytest.raises(FrameError, match="key"):
        b.open(recorded)
    assert b.open(a.seal(b"x"))[:2] == (who, 9), "one counter for all keys"


def test_the_last_frame_is_one_and_the_highest() -> None:
    a, b, who = sealers()
    last = a.seal_last(b"gasp")
    assert a.seal_last(b"other") == last and b.open(last) == (who, COUNTER_LAST, b"gasp")
    window = ReplayWindow()
    assert window.accept(5) and window.accept(COUNTER_LAST)
    assert not window.accept(COUNTER_LAST) and not window.accept(6)


def test_no_nonce_is_used_twice() -> None:
    a, _, _ = sealers()
    assert len({a.seal(b"same")[32:40] for _ in range(500)}) == 500
