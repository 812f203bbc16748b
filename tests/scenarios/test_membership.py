# SPDX-License-Identifier: GPL-2.0-only
"""Who is in the ring: partial connectivity, merges, restarts, leaves, scale."""

from __future__ import annotations

from membership.totem.states import State
from tests.scenarios.golden import scenario
from tests.scenarios.script import Script

DETECT_MS = 350
"From the silence of a host to the new configuration, three nodes."
BLOCKED_MS = 75_000
SERVED_MS = 600
"Longest silence at the quorate side, the one for the detection of the fault itself included."


def _pair(s: Script, fault: str, a: int, b: int) -> None:
    """One pair does not hear each other, fully or half, for 75 s: who has the quorum must hardly notice."""
    s.load(100)
    s.run(500)
    since = s.now
    if fault == "both":
        s.cut(a, b)
    else:
        s.one_way(a, b)
    s.run(BLOCKED_MS)
    s.at_most(3, "configurations while the pair was blocked", len(s.rings(since=since)))
    quorate = [n for n in s.ids if len(s.last(n)) > len(s.ids) // 2]
    if len(quorate) <= len(s.ids) // 2:
        s.fail(f"only {quorate} are in a quorate ring")
    for n in quorate:
        s.at_most(SERVED_MS, f"longest silence at {n} in ms", round(s.gap(n, since)))
    s.heal()
    s.ring(*s.ids, within=35_000)
    s.stands(5000)


PAIRS = [("both", 1, 3), ("one way", 1, 3), ("one way", 3, 1), ("both", 1, 2), ("one way", 1, 2), ("one way", 2, 1), ("both", 2, 3),
         ("one way", 2, 3), ("one way", 3, 2)]


@scenario(cases=PAIRS, seeds=1)
def test_t01_a_pair_of_three_is_blocked(s: Script, case: tuple[str, int, int]) -> None:
    """One pair of three blocked for 75 s: at most 3 configurations, the quorate pair delivers throughout."""
    _pair(s, *case)


@scenario(cases=[("one way", 1, 3)])
def test_t01_one_direction_of_a_pair_of_three(s: Script, case: tuple[str, int, int]) -> None:
    """One direction of one pair of three blocked for 75 s: the same bounds."""
    _pair(s, *case)


@scenario(nodes=5, cases=[("both", 1, 5), ("one way", 5, 1), ("both", 2, 3), ("one way", 2, 4)], seeds=1)
def test_t01_a_pair_of_five_is_blocked(s: Script, case: tuple[str, int, int]) -> None:
    """One pair of five blocked: four go on as one ring, one waits outside."""
    _pair(s, *case)


CHAINS = {
    "A-B-C": (3, [(1, 2), (2, 3)]),
    "A-B-C-D": (4, [(1, 2), (2, 3), (3, 4)]),
    "crossed chain": (5, [(3, 1), (1, 5), (5, 2), (2, 4)]),
    "star": (5, [(3, 1), (3, 2), (3, 4), (3, 5)]),
    "cycle": (5, [(1, 2), (2, 3), (3, 4), (4, 5), (5, 1)]),
    "two triangles": (6, [(1, 2), (2, 3), (1, 3), (3, 4), (4, 5), (5, 6), (4, 6)]),
}


@scenario(nodes=6, cases=list(CHAINS), seeds=1, started=False)
def test_t01_chains(s: Script, case: str) -> None:
    """Connectivity that is no clique, for 60 s: few configurations, everybody in some ring, the largest clique in one."""
    count, pairs = CHAINS[case]
    members = s.ids[:count]
    s.start(*members)
    s.run(3000)
    s.load(100, *members)
    since = s.now
    s.only(*pairs)
    s.run(60_000)
    s.at_most(2 * count, "configurations in 60 s", len(s.rings(since=since)))
    settled = s.now - 20_000
    s.at_most(0, "configurations in the last 20 s", len(s.rings(since=settled)))
    for n in members:
        s.at_most(SERVED_MS, f"longest silence at {n} in the last 20 s, in ms", round(s.gap(n, settled)))
    largest = 3 if case == "two triangles" else 2
    if max(len(s.last(n)) for n in members) < largest:  # more: a cycle is the way of the token, and others repair what gets lost
        s.fail(f"the largest ring should have {largest} members")
    s.heal()
    s.ring(*members, within=60_000)


@scenario(seeds=1)
def test_t01_a_pair_that_comes_and_goes(s: Script) -> None:
    """One pair flaps at 1 Hz for 60 s: damping bounds the configurations, the pair with the quorum serves."""
    s.load(100)
    since = s.now
    for _ in range(60):
        s.cut(1, 3)
        s.run(500)
        s.heal()
        s.run(500)
    s.at_most(24, "configurations in 60 s", len(s.rings(1, since=since)))
    for n in (1, 2):
        s.at_most(SERVED_MS, f"longest silence at {n} in ms", round(s.gap(n, since)))
    s.ring(1, 2, 3, within=35_000)


@scenario(cases=[0, *range(5, 1000, 35)], seeds=1)
def test_t02_remerge_race(s: Script, case: int) -> None:
    """1 and 2 are apart and 3 is dead; they meet again at any instant of the reformation: together, soon, for good."""
    s.partition([1], [2], [3])
    s.kill(3)
    s.run(case)
    s.heal()
    s.ring(1, 2, within=5000)
    s.stands(3000, 1, 2)


@scenario(cases=[260, *range(120, 330, 7)], seeds=2)
def test_t02_heals_between_verdict_and_ring(s: Script, case: int) -> None:
    """The network heals around the moment at which each side gives the other up and goes on alone."""
    s.kill(3)
    s.partition([1], [2])
    s.run(case)
    s.heal()
    s.ring(1, 2, within=5000)
    s.stands(3000, 1, 2)


PHASES = [*((how, storage, at) for how in ("busy", "commit", "recovery") for storage in ("kept", "lost", "damaged")
           for at in (0.0, 0.3, 0.9, 4.0)),
          *(("silence", storage, float(at)) for storage in ("kept", "lost") for at in (60, *range(120, 270, 10)))]


@scenario(cases=PHASES, seeds=1, disks_lost=True)
def test_t03_the_lowest_restarts_at_every_phase(s: Script, case: tuple[str, str, float]) -> None:
    """The representative dies and is back before anybody noticed, at every phase, with and without its stored sequence."""
    how, storage, after = case
    s.load(3)
    s.run(50)
    if how != "busy":
        s.kill(3)
    if how in ("commit", "recovery"):
        s.state(1, State[how.upper()])
    s.run(after)
    s.restart(1, storage=storage, reboot=storage != "kept")
    if how != "busy":
        s.start(3)
    s.ring(1, 2, 3, within=5000)
    s.quiet()
    s.told([s.submit(n, safe=True) for n in s.ids], within=1000)


@scenario(cases=[1, 2, 3], seeds=1)
def test_t03_a_restart_loop(s: Script, case: int) -> None:
    """One process restarts twenty times, a few ms apart: the others lose nobody but it."""
    s.load(5)
    others = {1, 2, 3} - {case}
    before = {n: len(s.seen[n].configurations) for n in others}
    for i in range(20):
        s.restart(case)
        s.run(3 + 7 * i)
    s.ring(1, 2, 3, within=5000)
    for n in others:
        for _t, conf in s.seen[n].configurations[before[n]:]:
            members = {m.nodeid for m in conf.members}
            if not others <= members:
                s.fail(f"node {n} installed {sorted(members)}")


@scenario(nodes=4, cases=[(1, 2, 3), (2, 3, 4), (1, 2, 3, 4)], seeds=2)
def test_t03_those_that_were_in_the_ring_are_others(s: Script, case: tuple[int, ...]) -> None:
    """A node that was cut off comes back to processes that have all been restarted without a word: their ring is silent outside of it
    but for one member's beacons, and yet each of them takes the seat that its former life had."""
    alone = next((n for n in s.ids if n not in case), 4)
    s.load(40)
    s.partition([n for n in s.ids if n != alone], [alone])
    s.run(1000)
    s.restart(*case)
    s.ring(*(n for n in s.ids if n != alone), within=3000)
    s.run(500)
    s.heal()
    s.ring(*s.ids, within=2500)
    s.stands(1000)


@scenario(cases=[2, 4], seeds=2)
def test_t09_every_datagram_comes_several_times(s: Script, case: int) -> None:
    """Everything is duplicated and overtakes itself: formation, a death, a return, messages, and no configuration too many."""
    s.wires.copies = case
    s.links(reorder=0.3, reorder_ns=3_000_000)
    s.load(5, size=200, safe=True)
    s.stands(2000)
    s.kill(1)
    s.ring(2, 3, within=1500)
    s.start(1)
    s.ring(1, 2, 3, within=3000)
    s.stands(2000)
    s.quiet()
    s.told([s.submit(1), s.submit(2), s.submit(3)], within=1000)


@scenario(cases=[2, 1, 3])
def test_t16_a_clean_leave(s: Script, case: int) -> None:
    """A leave costs milliseconds, whoever leaves."""
    s.leave(case)
    s.ring(*({1, 2, 3} - {case}), within=10)
    s.stands(1000, *({1, 2, 3} - {case}))


@scenario(cases=[(1, 2), (1, 3), (2, 3)])
def test_t16_a_leave_that_some_do_not_hear(s: Script, case: tuple[int, int]) -> None:
    """The Leave is lost on some of the ways: who heard it tells the others."""
    leaver, deaf = case
    s.one_way(leaver, deaf)
    s.leave(leaver)
    s.ring(*({1, 2, 3} - {leaver}), within=50)


@scenario(cases=[1, 2])
def test_t16_a_leave_that_nobody_hears(s: Script, case: int) -> None:
    """Every Leave is lost: as a silent host, no worse."""
    s.links(source=case, loss=1.0)
    s.leave(case)
    s.ring(*({1, 2, 3} - {case}), within=DETECT_MS)


@scenario(nodes=5, cases=[(1, 2), (1, 5), (2, 3, 4)])
def test_t16_several_leave_at_once(s: Script, case: tuple[int, ...]) -> None:
    """Several members leave in the same instant."""
    s.leave(*case)
    rest = set(s.ids) - set(case)
    s.ring(*rest, within=20)
    s.stands(1000, *rest)


@scenario(nodes=(70_000, 7, 4_294_967_295, 256, 65_536))
def test_t17_nodeids_of_all_sizes_have_one_order(s: Script) -> None:
    """Members are in one order everywhere, whatever their numbers."""
    for n in s.ids:
        members = [m.nodeid for m in s.seen[n].configurations[-1][1].members]
        if members != sorted(s.ids):
            s.fail(f"{n} has {members}")
    s.kill(7)
    s.ring(*(set(s.ids) - {7}), within=500)
