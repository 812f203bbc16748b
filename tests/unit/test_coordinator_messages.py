# SPDX-License-Identifier: GPL-2.0-only
"""Messages, the state and the record as bytes: whole round trips, and nothing but RemoteError for what is no message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.coordinator import messages as m
from bridge.coordinator import persist
from bridge.coordinator.state import Ballot, GroupRec, Maintenance, Node, Obligation, State, canonical, from_json, to_json
from vcs.errors import RemoteError
from vcs.model import RingId

u64 = st.integers(0, (1 << 64) - 1)
rings = st.builds(RingId, u64, u64)
names = st.text(max_size=20)
reports = st.builds(m.GroupReport, names, u64, u64, u64, u64, u64)
words = st.builds(m.Join, names, u64, u64, names) | st.builds(m.Leave, names, st.booleans()) | st.builds(m.Ack, names, u64, u64)
bodies = st.one_of(
    st.builds(m.Bundle, st.lists(words, max_size=4).map(tuple)),
    st.builds(m.Exchange, rings, st.booleans(), rings, u64, names, st.booleans(), st.booleans(), st.tuples(reports, reports),
              st.none() | st.just({"v": 1}), st.tuples(u64), u64, st.tuples(u64, u64, u64)),
    st.builds(m.Snapshot, rings, st.just({"x": [1, "two"]})),
    st.builds(m.Join, names, u64, u64), st.builds(m.Leave, names, st.booleans()), st.builds(m.Ack, names, u64, u64),
    st.builds(m.NodeLeave), st.builds(m.FenceResult, u64, u64, u64, st.booleans(), names), st.builds(m.FenceRetry, u64, u64, u64),
    st.builds(m.NodeOff, u64), st.builds(m.Overdue, names, u64, u64, u64), st.builds(m.VoteAgree, u64), st.builds(m.VoteDrop, u64, u64),
    st.builds(m.Expect, u64), st.builds(m.MaintenanceOn, u64, names, u64), st.builds(m.MaintenanceOff, u64), st.builds(m.Thawed, u64),
    st.builds(m.ShutDown), st.builds(m.Orphaned, names),
)


@given(bodies)
def test_every_message_comes_back(body: m.Body) -> None:
    assert m.decode(m.encode(body)) == body


@given(bodies, st.integers(m.MESSAGE_MIN, 2000))
def test_parts_come_back_whole(body: m.Body, limit: int) -> None:
    payload = m.encode(body)
    parts = m.split(payload, limit)
    assert all(len(p) <= limit for p in parts)
    assembler = m.Assembler()
    whole = [assembler.feed("sender", p) for p in parts]
    assert whole[:-1] == [None] * (len(parts) - 1)
    assert whole[-1] == payload
    assert assembler.waiting == {}


def test_a_lost_part_is_noticed() -> None:
    parts = m.split(m.encode(m.Snapshot(RingId(1, 1), {"x": "y" * 2000})), 300)
    assembler = m.Assembler()
    assert assembler.feed("a", parts[0]) is None
    with pytest.raises(RemoteError, match="where 1 was expected"):
        assembler.feed("a", parts[2])
    assert assembler.feed("a", parts[0]) is None


@given(st.binary(max_size=200))
def test_noise_is_a_remote_error(noise: bytes) -> None:
    with pytest.raises(RemoteError):
        m.decode(noise)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["p", "f", "t", "b", "name", "event"]), inner, max_size=5),
)


@settings(max_examples=300)
@given(bodies, st.data())
def test_a_message_with_one_wrong_field_is_a_remote_error_or_a_message(body: m.Body, data: st.DataObject) -> None:
    value = json.loads(m.encode(body))
    if value["b"]:
        value["b"][data.draw(st.sampled_from(sorted(value["b"])))] = data.draw(json_values)
    try:
        again = m.decode(canonical(value))
    except RemoteError:
        return
    assert m.decode(m.encode(again)) == again


def test_another_protocol_is_named() -> None:
    value = json.loads(m.encode(m.NodeLeave())) | {"p": 2}
    with pytest.raises(RemoteError, match="protocol version 2"):
        m.decode(canonical(value))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(RemoteError):
        m.decode(b"[" * 100_000)


def whole_state() -> State:
    group = GroupRec("g", 2, 3, 1 << 20 | 1, 2, {1: (11, 5)}, {1: 11, 2: 22}, {2: 22}, {3: 33}, {1}, {1}, {1: 11}, True, 7, {1: (11, 5)})
    obligation = Obligation(3, 33, {"g": 5}, False, "retry", 2, 1, 9, True, "no answer", 4, 5000)
    return State(RingId(8, 1), 12, 3, 1, (1, 2), {1: node()}, {"g": group}, {(3, 33): obligation}, [(4, 44, "x")], 1,
                 Ballot(2, 7, (1,), (3,), {1, 2}), 2, Maintenance(4, 5000, "disks", 1), 4, 1)


def node() -> Node:
    return Node("member", 11, 9, True, 2, False, True, 4, 5000)


def test_rows_of_a_version_that_knew_less_are_read() -> None:
    value = json.loads(canonical(to_json(whole_state())))
    for key in ("ballot", "slow_fencer", "maintenance", "serial", "shutdown"):
        del value[key]
    value["nodes"] = [row[:5] for row in value["nodes"]]
    value["obligations"] = [row[:10] for row in value["obligations"]]
    old = from_json(value)
    assert old.nodes == {1: Node("member", 11, 9, True)}
    assert old.obligations[3, 33].detail == "no answer"
    assert (old.ballot, old.maintenance) == (Ballot(), None)


def test_the_state_comes_back_and_its_copy_is_its_own() -> None:
    state = whole_state()
    again = from_json(json.loads(canonical(to_json(state))))
    assert again == state
    assert again.digest() == state.digest()
    copy = state.copy()
    assert copy == state
    copy.groups["g"].stop_acks.add(2)
    copy.obligations[3, 33].groups["h"] = 1
    copy.nodes[1].status = "failed"
    copy.ballot.agreed.add(3)
    assert state == whole_state()
    assert copy.digest() != state.digest()


@given(json_values)
def test_no_state_and_no_record_are_remote_errors(value: object) -> None:
    with pytest.raises(RemoteError):
        from_json(value)
    with pytest.raises(RemoteError):
        persist.parse(value)


def test_the_record_keeps_what_must_survive() -> None:
    record = persist.decode(persist.encode(whole_state(), 1))
    assert (record.primary, record.version, record.left) == (RingId(8, 1), 12, False)
    assert record.nodes == {1: node()}
    assert record.extra == 2
    assert record.obligations == [whole_state().obligations[3, 33]]


@pytest.mark.parametrize("inner", [
    ["node_off", {"nodeid": 3}], ["bundle", {"words": []}], ["ack", {"name": "g", "event": 1}], ["ack"], "ack", 7,
])  # fmt: skip
def test_a_bundle_holds_words_about_groups_and_nothing_else(inner: object) -> None:
    text = json.loads(m.encode(m.Bundle((m.Leave("g"),))))
    text["b"]["words"].append(inner)
    with pytest.raises(RemoteError):
        m.decode(canonical(text))


def test_a_bundle_has_a_limit() -> None:
    with pytest.raises(RemoteError):
        m.decode(m.encode(m.Bundle((m.Leave("g"),) * (m.BUNDLE_MAX + 1))))
