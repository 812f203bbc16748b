# SPDX-License-Identifier: GPL-2.0-only
"""Many groups at once: what an event of all of them costs, counted in ordered messages, and that a bundle does what its words would."""

from __future__ import annotations

import pytest

from bridge.coordinator import Coordinator, bundle, merge
from bridge.coordinator import messages as m
from tests.unit.coordinator_story import FENCED, H, Story
from vcs.model import Level

MANY = 40
NAMES = [f"dlm:many{i}" for i in range(MANY)]
WORDS = (m.Ack("a", 1, 1), m.Leave("b"), m.Join("c", 1, 0))


def told(story: Story, monkeypatch: pytest.MonkeyPatch) -> list[m.Body]:
    """Every message that is delivered at node 1 from now on."""
    found: list[m.Body] = []
    body = Coordinator._body

    def listen(self: Coordinator, sender: object, what: m.Body) -> None:
        if self.local.nodeid == 1:
            found.append(what)
        body(self, sender, what)  # type: ignore[arg-type]

    monkeypatch.setattr(Coordinator, "_body", listen)
    return found


def join_all(story: Story, *nodeids: int) -> None:
    """As a daemon sees it that has read its switch once."""
    for n in nodeids:
        teller = story.nodes[n]
        for name in NAMES:
            teller.consumers[name] = teller.switch.join(teller.switch.consumer(), H, name, Level.LOCK_MANAGER, FENCED, name).session
        story.look(n)
    story.settle()


def story_of(*nodeids: int) -> Story:
    story = Story()
    story.boot(*nodeids)
    story.form(*nodeids)
    return story


def test_an_event_of_all_groups_costs_a_few_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    story = story_of(1, 2, 3)
    join_all(story, 1, 2, 3)
    assert all(story.running(name) == dict.fromkeys((1, 2, 3), (1, 2, 3)) for name in NAMES)
    found = told(story, monkeypatch)
    gone = story.nodes[3].who
    story.power_off(3)
    story.form(1, 2)
    fencer = next(n for n in (1, 2) if story.nodes[n].fences)
    story.fence_done(fencer, gone.nodeid, gone.boot)
    assert all(story.running(name) == {1: (1, 2), 2: (1, 2)} for name in NAMES)
    assert len(found) < MANY / 2, f"{len(found)} messages for one event of {MANY} groups"


def test_one_word_of_a_bundle_that_is_stale_harms_no_other() -> None:
    """A node leaves several groups at once; one of its words is about a group that is gone."""
    story = story_of(1, 2, 3)
    join_all(story, 1, 2)
    teller = story.nodes[2]
    for name in NAMES[:5]:
        teller.switch.leave(H, teller.consumers[name], name)
    story.look(2)
    for n in (1, 2, 3):
        del story.nodes[n].coordinator.state.groups[NAMES[0]]
    story.settle()
    assert all(story.running(name) == {1: (1,)} for name in NAMES[1:5])
    assert all(story.running(name) == {1: (1, 2), 2: (1, 2)} for name in NAMES[5:])


def test_older_members_get_each_word_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundle.pack(WORDS, bundle.FEATURE_BUNDLE - 1) == list(WORDS)
    assert bundle.pack(WORDS, bundle.FEATURE_BUNDLE) == [m.Bundle(WORDS)]
    assert bundle.pack(WORDS[:1], bundle.FEATURE_BUNDLE) == [WORDS[0]]
    many = bundle.pack(WORDS * m.BUNDLE_MAX, bundle.FEATURE_BUNDLE)
    assert [word for body in many for word in bundle.unpack(body)] == list(WORDS * m.BUNDLE_MAX)
    assert all(m.decode(m.encode(body)) == body for body in many)
    exchange = merge.exchange

    def older(c: Coordinator, record: bytes | None) -> m.Exchange:
        said = exchange(c, record)
        return said if c.local.nodeid != 2 else m.Exchange(**{f: getattr(said, f) for f in said.__slots__} | {"feature": 2})

    monkeypatch.setattr(merge, "exchange", older)
    story = story_of(1, 2, 3)
    found = told(story, monkeypatch)
    join_all(story, 1, 2, 3)
    assert all(story.running(name) == dict.fromkeys((1, 2, 3), (1, 2, 3)) for name in NAMES)
    assert found and not any(isinstance(body, m.Bundle) for body in found)
