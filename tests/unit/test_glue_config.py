# SPDX-License-Identifier: GPL-2.0-only
"""nodir, weights and refused joins: from cluster.toml to the kernel's files, and from a refusal to the caller's errno."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm_glue.process import refusal
from dlm_glue.state import Applied, Space, State, Who, decode_record, encode_record
from tests.fakes.glue import World
from tests.unit.coordinator_story import Story
from vcs.config.load import loads
from vcs.config.model import ClusterConfig, DlmConfig, LockspaceConfig
from vcs.errors import ConfigError
from vcs.model import Phase

NODES = "".join(f'[[node]]\nid = {n}\nname = "n{n}"\naddress = "192.0.2.{n}"\n' for n in (1, 2))
GOOD = '[cluster]\nname = "alpha"\n' + NODES
WEIGHED = "nodir=1 weights=1:2,3:1"


def config(text: str) -> ClusterConfig:
    return loads(GOOD + text, "c", with_key=False)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config(text)
    return [p.split(": ", 1)[1] for p in caught.value.problems]


@pytest.fixture
def world() -> Iterator[World]:
    w = World()
    yield w
    assert w.dlm.violations == []
    w.close()


# --- cluster.toml ---------------------------------------------------------------------------------------------------------------------


def test_a_lockspace_is_read() -> None:
    dlm = config('[dlm]\nlog_debug = true\n[[dlm.lockspace]]\nname = "x"\nnodir = true\nweights = { n2 = 3, 1 = 0 }\n').dlm
    assert dlm == DlmConfig(log_debug=True, lockspaces=(LockspaceConfig("x", True, {1: 0, 2: 3}),))
    assert (dlm.agreed("x"), dlm.agreed("y")) == ("tcp port=21064 nodir=1 weights=1:0,2:3", "tcp port=21064")
    assert [dlm.lockspace("x").weight(n) for n in (1, 2, 9)] == [0, 3, 0] and dlm.lockspace("y").weight(9) == 1
    assert config("").of_group("dlm:x") == "tcp port=21064" and config("").of_group("service") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weights = { n3 = 1 }", "dlm.lockspace.weights: 'n3' is no node; write the name or id of a [[node]]"),
        ("weights = { n1 = 0 }", "dlm.lockspace.weights: no node has a share; give at least one node a weight above 0"),
        ("weights = { n1 = 1, 1 = 1 }", "dlm.lockspace.weights: node 1 stands twice; by its name or by its id, once"),
        ("weights = { n1 = -1 }", "dlm.lockspace.weights: the weight of 'n1' is -1; "
                                  "write { NODE = WEIGHT }, each weight a whole number from 0 to 1000"),
        ("weights = 3", "dlm.lockspace.weights: 3 is no table of weights; "
                        "write { NODE = WEIGHT }, each weight a whole number from 0 to 1000"),
        ("nodr = true", "dlm.lockspace.nodr: unknown key; did you mean 'nodir'?"),
        ('[[dlm.lockspace]]\nname = "x"', "dlm.lockspace.name: 'x' stands twice; keep one of the two"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_lockspace(text: str, expected: str) -> None:
    assert problems(f'[[dlm.lockspace]]\nname = "x"\n{text}\n') == [expected]


def test_other_mistakes_of_lockspaces() -> None:
    assert problems("[dlm]\nlockspace = 3\n") == ["dlm.lockspace: must be a list of tables; write [[dlm.lockspace]], once per lockspace"]
    assert problems("[[dlm.lockspace]]\nnodir = true\n")[0].startswith("dlm.lockspace.name: missing; add it")
    assert problems('[[dlm.lockspace]]\nname = "a/b"\n') == [
        "dlm.lockspace.name: 'a/b' is no lockspace; write the name that /sys/kernel/dlm shows"
    ]
    assert problems('["dlm.lockspace"]\nname = "x"\n')[0].startswith("dlm.lockspace: unknown section")


@given(st.booleans(), st.dictionaries(st.integers(1, 2**31), st.integers(0, 1000), max_size=5))
def test_the_text_says_it_all(nodir: bool, weights: dict[int, int]) -> None:
    made = LockspaceConfig("", nodir, weights)
    assert LockspaceConfig.parse(made.text()) == made


@pytest.mark.parametrize("text", ["rubbish", "weights=", "weights=1", "weights=a:1"])
def test_a_text_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        LockspaceConfig.parse(text)


# --- the kernel's files ---------------------------------------------------------------------------------------------------------------


def weights(world: World) -> dict[str, int]:
    return {name: node.weight for name, node in world.dlm.spaces["x"].items()}


def configured(world: World, text: str) -> None:
    world.glue._configs = {"x": text} if text else {}
    world.glue.state = replace(world.glue.state, configs=world.glue._configs)


def test_every_node_gets_its_weight_and_the_lockspace_its_mode(world: World) -> None:
    configured(world, WEIGHED)
    world.mounted("x", {1: 11, 2: 12})
    assert weights(world) == {"1": 2, "2": 0}
    assert world.dlm.lockspaces["x"].nodir == 1
    configured(world, "")
    world.change("x", {1: 11, 2: 12, 3: 13})
    assert weights(world) == {"1": 2, "2": 0, "3": 1}, "what was agreed on at the join holds until it is left"
    world.mounted("y", {1: 31})
    assert world.dlm.lockspaces["y"].nodir == 0 and world.dlm.spaces["y"]["1"].weight == 1


def test_a_successor_goes_on_with_what_was_agreed_on(world: World) -> None:
    configured(world, WEIGHED)
    world.mounted("x", {1: 11, 2: 12})
    world.kill()
    world.boot()
    world.settle()
    assert world.glue.state.configs == {}, "its own configuration says nothing of it"
    world.change("x", {1: 11, 2: 12, 3: 13})
    assert weights(world) == {"1": 2, "2": 0, "3": 1}


def test_the_record_holds_it() -> None:
    spaces = {"x": Space("x", nodes={1: Who(5, 6)}, event=7, config=WEIGHED), "y": Space("y", nodes={1: Who(5, 6)}, event=7)}
    state = State(1, comms={2: 9}, spaces=spaces)
    _, applied = decode_record(encode_record(state))
    assert applied == {"x": Applied(7, {1: Who(5, 6)}, WEIGHED), "y": Applied(7, {1: Who(5, 6)}, "")}


# --- refusals -------------------------------------------------------------------------------------------------------------------------


def test_the_errno_of_a_refusal_reaches_the_caller(world: World) -> None:
    asked: list[str] = []

    def why(group: str) -> tuple[int, str]:
        asked.append(group)
        return errno.EINVAL, "configured differently"

    world.glue._refusal = why
    world.open("x")
    world.settle()
    world.left("x", errno.EINVAL)
    world.settle()
    assert asked == ["dlm:x"]
    assert world.did("event_done") == [("event_done", "x", "online", -errno.EINVAL)]
    assert [r["text"] for r in world.notes if r["event"] == "join_refused"] == ["configured differently"]


def test_a_refusal_that_nobody_explains_is_an_io_error() -> None:
    code, words = refusal("/nonexistent/vcs.sock", "dlm:x")
    assert code == errno.EIO and "vcsd is not running" in words


def differing(story: Story, nodeid: int) -> None:
    coordinator = story.nodes[nodeid].coordinator
    other = replace(coordinator.config, dlm=DlmConfig(lockspaces=(LockspaceConfig("x", True),)))
    coordinator.config = coordinator.feed.config = other


def test_a_node_that_is_configured_differently_cannot_join() -> None:
    """Weights that differ are found by nobody else: lookups end with -22 and mount says "wrong fs type"."""
    story = Story()
    story.boot(1, 2, 3)
    story.form(1, 2, 3)
    differing(story, 3)
    story.join("dlm:x", 1)
    story.join("dlm:x", 2)
    story.join("dlm:x", 3)
    assert story.running("dlm:x") == {1: (1, 2), 2: (1, 2)}
    assert story.nodes[3].group("dlm:x") is None, "it is gone, so that its consumer is told"
    told = story.nodes[3].coordinator.describe()["refused"]
    assert told == {
        "dlm:x": [errno.EINVAL, "its node has 'tcp port=21064 nodir=1' configured, the members have 'tcp port=21064': "
                  "make cluster.toml alike on all nodes"]
    }  # fmt: skip
    assert story.nodes[1].coordinator.describe()["refused"] == {}
    assert len({t.coordinator.state.digest() for t in story.nodes.values()}) == 1
    story.join("dlm:y", 3)
    assert story.running("dlm:y") == {3: (3,)}, "other lockspaces are not concerned"
    # Whoever is first decides.
    story.leave("dlm:x", 1)
    story.leave("dlm:x", 2)
    story.join("dlm:x", 3)
    assert story.running("dlm:x") == {3: (3,)}
    story.join("dlm:x", 1)
    assert story.running("dlm:x") == {3: (3,)}


def test_a_name_that_is_too_long_is_refused() -> None:
    from bridge.coordinator import groups
    from bridge.coordinator.state import State as Replicated

    assert groups.refusal(Replicated(), "x" * 65, "") == (errno.ENAMETOOLONG, "a group's name has 1 to 64 bytes")
    assert not groups.join(Replicated(), 1, 1, "x" * 65, 2, 0)
    full = Replicated(groups={str(n): None for n in range(groups.GROUPS_MAX)})  # type: ignore[misc]
    refused = groups.refusal(full, "new", "")
    assert refused is not None and refused[0] == errno.ENOSPC


# --- looking at a recovery --------------------------------------------------------------------------------------------------------------


def test_a_look_that_shows_nothing_new_decides_nothing(world: World) -> None:
    world.open("x")
    world.settle()
    world.stop("x")
    world.settle()
    world.start("x", {1: 11, 2: 12})
    world.settle()
    decisions: list[State] = []
    world.glue.watchers.append(decisions.append)
    for status, expected in ((0x01, 1), (0x01, 1), (0x15, 2), (0x55, 3), (0x55, 4)):
        world.recovered("x", status)
        assert len(decisions) == expected, f"{status:#x}"
    world.recovered("x", 0xFF)
    assert world.acked("x", Phase.START)
