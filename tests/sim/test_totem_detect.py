# SPDX-License-Identifier: GPL-2.0-only
"""Failure detection and partial connectivity on the simulated network: how long, how many configurations, and who is left behind."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import pytest

from membership.api import Configuration, Health, Kind
from tests.sim.engine_node import EngineHost, Node
from tests.sim.test_totem_sim import Cluster
from tests.sim.world import MS, SECOND

DETECT = 270 * MS
REST = 50 * MS
"For so long an idle ring asks nobody anything."


class Watched(Cluster):
    """A cluster that remembers when which regular configurations came, and what was said about whom, since ``mark``."""

    def __init__(self, nodes: int = 3, seed: str = "detect") -> None:
        self.since = 0
        self.regular: dict[int, list[tuple[int, list[int]]]] = {n: [] for n in range(1, nodes + 1)}
        self.said: list[tuple[int, int, str, str]] = []
        super().__init__(nodes, seed)
        self.mark()

    def _program(self, node: Node, processor: object) -> EngineHost:
        host = super()._program(node, processor)
        told = host.sink

        def sink(event: object) -> None:
            if isinstance(event, Configuration) and event.kind is Kind.REGULAR:
                self.regular[node.nodeid].append((self.world.now - self.since, [p.nodeid for p in event.members]))
            elif isinstance(event, Health):
                self.said.append((node.nodeid, event.nodeid, event.what, event.detail))
            told(event)  # type: ignore[arg-type]

        host.sink = sink
        return host

    def mark(self) -> None:
        self.since = self.world.now
        self.said.clear()
        for seen in self.regular.values():
            seen.clear()

    def one_change(self, nodes: Iterable[int], members: list[int]) -> int:
        """Each of ``nodes`` has installed exactly one configuration since the mark, of ``members``; when the last one did."""
        for n in nodes:
            assert [m for _t, m in self.regular[n]] == [members], f"node {n}: {self.regular[n]}"
        return max(self.regular[n][0][0] for n in nodes)

    def cut(self, a: int, b: int, both: bool = True) -> None:
        self.network.cut(a, b)
        if both:
            self.network.cut(b, a)

    def whole(self) -> bool:
        return all(len(h.core.core.ring.members) == len(self.nodes) for h in self.hosts.values())


# --- somebody is silent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nodes", "dead"), [
    (2, [1]), (3, [1]), (3, [3]), (8, [4]), (8, [3, 4, 5]), (8, [1, 2, 3, 4, 5]), (16, [7]), (16, [1, 2, 3]), (16, [2, 4, 6, 8, 10]),
    (16, [*range(9, 17)]),
])
def test_the_silent_cost_one_configuration_and_the_detection_time(nodes: int, dead: list[int]) -> None:
    """Also neighbours that fall silent together, of whom nobody watches the middle one."""
    c = Watched(nodes)
    for n in dead:
        c.nodes[n].crash()
    c.run(2 * SECOND)
    left = [n for n in c.nodes if n not in dead]
    took = c.one_change(left, left)
    assert took <= REST + DETECT + (30 + 4 * nodes) * MS, f"{took / MS} ms"
    assert {(about, what) for _n, about, what, _d in c.said} >= {(n, "suspect") for n in dead[:1]}
    assert {about for _n, about, what, _d in c.said if what == "suspect"} <= set(dead), "nobody else is suspected"


def test_the_last_words_of_a_process_cost_a_few_round_trips() -> None:
    for nodes in (2, 3, 16):
        c = Watched(nodes)
        gasp = c.hosts[2].core.last_gasp()
        c.nodes[2].crash()
        c.mark()
        for n in c.nodes:
            if n != 2:
                c.network.send(2, [n], gasp)
        c.run(SECOND)
        left = [n for n in c.nodes if n != 2]
        assert c.one_change(left, left) <= (3 + 2 * nodes) * MS
        assert (left[0], 2, "process_dead", "") in c.said


def test_a_change_costs_one_join_of_each_node() -> None:
    c = Watched(16)
    before = {n: h.core.core.counters["joins"] for n, h in c.hosts.items()}
    gasp = c.hosts[9].core.last_gasp()
    c.nodes[9].crash()
    for n in c.nodes:
        if n != 9:
            c.network.send(9, [n], gasp)
    c.run(SECOND)
    assert [h.core.core.counters["joins"] - before[n] for n, h in c.hosts.items() if n != 9] == [1] * 15


def test_a_port_that_refuses_is_asked_and_then_left_behind() -> None:
    """The kernel's word alone proves nothing; with three asks unanswered meanwhile it needs no more."""
    c = Watched(3)
    c.nodes[3].crash()
    host = c.hosts[1]

    def refused() -> None:
        host._run(host.core.hint(3, "refused", 0, c.world.now))
        c.nodes[1].poke()

    for at in range(0, 40, 5):
        c.world.after(at * MS, refused)
    c.run(SECOND)
    assert c.one_change([1, 2], [1, 2]) <= 60 * MS
    assert any("its port refused" in detail for _n, about, what, detail in c.said if (about, what) == (3, "suspect"))


def test_a_forged_refusal_makes_us_ask_and_nothing_else() -> None:
    c = Watched(3)
    host = c.hosts[1]
    for at in range(0, 400, 3):
        c.world.after(at * MS, lambda: host._run(host.core.hint(3, "refused", 0, c.world.now)))
    c.run(SECOND)
    assert not any(c.regular.values())
    assert host.core.core.counters["probes"] > 5


def test_a_lost_token_costs_a_few_milliseconds() -> None:
    c = Watched(3)
    link = c.network.links[1, 2]
    c.run(20 * MS)
    link.cut = True
    lost = c.network.sent
    assert c.world.run(c.world.now + SECOND, lambda: c.hosts[1].core.core.counters["token_retransmits"] > 0)
    link.cut = False
    assert c.network.sent > lost
    began, evidence = c.world.now, c.hosts[3].core.core.ring_heard_ns
    c.until(lambda: c.hosts[3].core.core.ring_heard_ns > evidence, 40 * MS)
    assert c.world.now - began < 40 * MS
    assert not any(c.regular.values())


# --- nobody is silent -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", (2, 3, 8))
def test_a_freeze_of_four_fifths_of_the_detection_time_is_no_failure(nodes: int) -> None:
    c = Watched(nodes)
    for i in range(20):
        victim = i % nodes + 1
        c.run((37 + 13 * i) * MS)
        c.nodes[victim].pause()
        c.run(DETECT * 4 // 5)
        c.nodes[victim].resume()
    c.run(SECOND)
    assert not any(c.regular.values()), c.said


def test_who_was_frozen_itself_accuses_nobody() -> None:
    c = Watched(3)
    c.nodes[2].pause()
    c.run(3 * SECOND)
    c.mark()
    c.nodes[2].resume()
    c.run(MS // 2)
    assert not [s for s in c.said if s[0] == 2 and s[2] in ("silent", "suspect")]
    assert (2, 2, "late") in {s[:3] for s in c.said}
    c.until(c.whole, 3 * SECOND)


def test_everybody_frozen_together_goes_on_as_if_nothing_was() -> None:
    c = Watched(4)
    for node in c.nodes.values():
        node.pause()
    c.run(5 * SECOND)
    for node in c.nodes.values():
        node.resume()
    c.run(SECOND)
    assert not any(c.regular.values()), c.said


def test_our_own_cable_is_no_evidence_against_others() -> None:
    c = Watched(3)
    host = c.hosts[3]
    host._run(host.core.hint(0, "link_down", 0, c.world.now))
    c.network.isolate(3)
    c.run(SECOND * 2 // 5)
    assert not [s for s in c.said if s[0] == 3 and s[2] == "suspect"]
    c.one_change([1, 2], [1, 2])


# --- some hear some ---------------------------------------------------------------------------------------------------------

PAIRS = [(a, b, both) for a, b in ((1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)) for both in (False, True)]


@pytest.mark.parametrize(("a", "b", "both"), PAIRS)
def test_t1_a_bad_pair_costs_at_most_one_configuration_in_75_seconds(a: int, b: int, both: bool) -> None:
    """corosync: 16 of them, and the two that could have gone on did not. Here they serve throughout."""
    c = Watched(3, f"t1-{a}-{b}-{both}")
    c.cut(a, b, both)
    heard = dict.fromkeys(c.nodes, 0)
    for second in range(75):
        c.hosts[1].submit(b"%d" % second)
        c.run(SECOND)
        for n in c.nodes:
            if b"%d" % second in c.told[n]:
                heard[n] += 1
    for n in c.nodes:
        assert len(c.regular[n]) <= 1, c.regular
    together = c.members(1)
    assert len(together) >= 2
    assert all(heard[n] == 75 for n in together), heard
    c.network.heal()
    c.until(c.whole, 4 * SECOND)


def test_t1_a_chain_breaks_in_two_and_stays_so() -> None:
    c = Watched(4)
    for a, b in ((1, 3), (1, 4), (2, 4)):
        c.cut(a, b)
    c.run(75 * SECOND)
    c.one_change((1, 2), [1, 2])
    c.one_change((3, 4), [3, 4])
    c.network.heal()
    c.until(c.whole, 4 * SECOND)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_cut_for_ever_settles_in_a_second_and_stays(seed: int) -> None:
    c = Watched(6, f"graph-{seed}")
    rng = c.world.rng("graph")
    for a, b in combinations(c.nodes, 2):
        if rng.random() < 0.35:
            c.cut(a, b, rng.random() < 0.5)
    c.run(3 * SECOND)
    assert all(len(seen) <= 4 for seen in c.regular.values()), c.regular
    c.mark()
    c.run(60 * SECOND)
    assert not any(c.regular.values()), c.regular
    c.network.heal()
    c.until(c.whole, 6 * SECOND)
    assert all(len(seen) <= 3 for seen in c.regular.values()), c.regular


@pytest.mark.parametrize(("nodes", "left"), [(5, [1, 2]), (5, [1]), (16, [*range(1, 9)]), (16, [2, 4, 6, 8, 10, 12, 14, 16])])
def test_two_sides_part_once_and_meet_once(nodes: int, left: list[int]) -> None:
    c = Watched(nodes)
    right = [n for n in c.nodes if n not in left]
    c.network.partition([left, right])
    c.run(5 * SECOND)
    c.one_change(left, left)
    c.one_change(right, right)
    c.mark()
    c.network.heal()
    c.until(c.whole, 4 * SECOND)
    c.run(SECOND)
    c.one_change(c.nodes, [*c.nodes])


def test_a_link_that_comes_and_goes_is_trusted_less_and_less() -> None:
    """Merge damping: the pair 1-3 works for 3 s, fails for 1 s, and so on for two minutes."""
    c = Watched(3)
    for _ in range(30):
        c.run(3 * SECOND)
        c.cut(1, 3)
        c.run(SECOND)
        c.network.heal()
    assert len(c.regular[2]) <= 14, [t // SECOND for t, _m in c.regular[2]]
    assert len([t for t, _m in c.regular[2] if t > 60 * SECOND]) <= 4
    c.until(c.whole, 40 * SECOND)


def test_a_dead_neighbourhood_is_not_asked_for_ever_at_full_pace() -> None:
    c = Watched(8)
    for n in (5, 6, 7, 8):
        c.nodes[n].crash()
    c.run(20 * SECOND)
    before = c.network.sent
    c.run(10 * SECOND)
    # tokens and acknowledgements: 4 hops each 50 ms; beacons: 4 each 200 ms; 16 claims, a probe each 2 s
    assert (c.network.sent - before) / 10 <= 2 * 4 * 20 + 4 * 5 + 16 / 2 + 10


def test_a_cluster_that_starts_together_does_not_drown_in_joins() -> None:
    c = Watched(16)
    joins = [h.core.core.counters["joins"] for h in c.hosts.values()]
    assert max(joins) <= 8, joins
