# SPDX-License-Identifier: GPL-2.0-only
"""Configurations that are changed one node after the other, while the ring runs."""

from __future__ import annotations

from tests.scenarios.golden import scenario
from tests.scenarios.script import Script


@scenario(nodes=4, started=False, seeds=2)
def test_t15_a_node_is_added(s: Script) -> None:
    """A fourth node is put into one configuration after the other, then it is started: one configuration, its own."""
    s.know(1, 2, 3, at=(1, 2, 3))
    s.start(1, 2, 3)
    s.ring(1, 2, 3, within=1000)
    s.load(20, 1, 2, 3)
    s.run(500)
    since = s.now
    for n in (2, 1, 3):
        s.run(1000)
        s.know(1, 2, 3, 4, at=(n,))
    s.run(1000)
    s.at_most(0, "configurations", len(s.rings(1, 2, 3, since=since)))
    s.start(4)
    s.ring(1, 2, 3, 4, within=1000)
    for n in (1, 2, 3):
        s.at_most(60, f"longest silence at {n} in ms", round(s.gap(n, since)))


@scenario(nodes=4, started=False, seeds=2)
def test_t15_a_node_is_started_before_all_know_it(s: Script) -> None:
    """The new node is started first: whoever knows it tries to take it in, the others refuse; nobody dies, and the end is good."""
    s.know(1, 2, 3, at=(1, 2, 3))
    s.start(1, 2, 3)
    s.ring(1, 2, 3, within=1000)
    s.load(20, 1, 2, 3)
    s.run(500)
    since = s.now
    s.start(4)
    for n in (1, 2, 3):
        s.run(2000)
        s.know(1, 2, 3, 4, at=(n,))
        s.at_most(2000, f"longest silence at {n} in ms", round(s.gap(n, since)))
    s.ring(1, 2, 3, 4, within=35_000)
    s.stands(3000)


@scenario(nodes=4, seeds=2)
def test_t15_a_node_is_taken_out(s: Script) -> None:
    """A node leaves and is taken out of one configuration after the other: the rest does not notice."""
    s.load(20, 1, 2, 3)
    s.leave(4)
    s.ring(1, 2, 3, within=20)
    since = s.now
    for n in (3, 1, 2):
        s.run(300)
        s.know(1, 2, 3, at=(n,))
    s.run(1000)
    s.at_most(0, "configurations", len(s.rings(since=since + 1)))
    s.kill(1)
    s.ring(2, 3, within=400)
