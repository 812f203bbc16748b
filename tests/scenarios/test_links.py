# SPDX-License-Identifier: GPL-2.0-only
"""Links, identities and strangers: redundant links, frames that are not ours, two clusters on one network, a staged configuration.

What needs real sockets (IPv6, path MTU, ICMP, key files) is tested with processes: see docs/scenarios.md.
"""

from __future__ import annotations

import pytest

from membership.api import Processor
from membership.totem import wire
from membership.totem.frames import Token, make_regular
from membership.totem.seal import Sealer
from tests.scenarios.golden import scenario
from tests.scenarios.script import Script
from tests.scenarios.wires import Filter
from tests.sim.engine_node import CheapAead, CheapSuite


@scenario(cases=["one node, link 0", "one node, link 1", "one pair, link 0", "everything, link 0", "one way, link 0"], ways=2, seeds=2)
def test_t20_a_flapping_link(s: Script, case: str) -> None:
    """One of two links flaps at 1 Hz for 20 s: no configuration changes, and messages hardly notice."""
    who, way = case.split(", link ")
    s.load(20, size=600)
    s.run(200)
    since = s.now
    for _ in range(20):
        for a in s.ids:
            for b in s.ids:
                if (a < b and {"one node": 1 in (a, b), "one pair": (a, b) == (1, 2), "everything": True}.get(who)) or (
                        who == "one way" and (a, b) == (3, 1)):
                    (s.one_way if who == "one way" else s.cut)(a, b, int(way))
        s.run(500)
        s.heal()
        s.run(500)
    s.at_most(0, "configurations", len(s.rings(since=since)))
    for n in s.ids:
        s.at_most(150, f"longest silence at {n} in ms", round(s.gap(n, since)))


@scenario(ways=2, seeds=2)
def test_t20_each_node_has_lost_another_link(s: Script) -> None:
    """1 and 2 share only link 0, 2 and 3 only link 1, 1 and 3 both: one ring."""
    s.load(20)
    s.run(200)
    since = s.now
    s.cut(1, 2, 1)
    s.cut(2, 3, 0)
    s.run(5000)
    s.at_most(0, "configurations", len(s.rings(since=since)))
    s.cut(1, 3, 0)
    s.run(5000)
    s.at_most(0, "configurations", len(s.rings(since=since)))
    s.kill(1)
    s.ring(2, 3, within=500)


@scenario(cases=[1300, 900, 500], seeds=1)
def test_t19_the_path_takes_only_smaller_frames(s: Script, case: int) -> None:
    """From one moment on frames above a size vanish without a word between two nodes: bounded time, and the others serve."""
    s.load(20, size=200)
    s.run(200)
    since = s.now
    s.links(source=1, to=2, drop_above=case)
    s.links(source=2, to=1, drop_above=case)
    s.submit(1, 9000)
    s.run(10_000)
    s.at_most(3000, "longest silence at 3 in ms", round(s.gap(3, since)))
    s.links(drop_above=0)
    s.ring(1, 2, 3, within=35_000)


def _frames(s: Script, seconds: float) -> list[tuple[int, int, bytes]]:
    """What goes over the wires for a while: (source, target, datagram)."""
    seen: list[tuple[int, int, bytes]] = []

    def note(a: int, b: int, data: bytes) -> int:
        seen.append((a, b, data))
        return 0

    s.wires.filter = note
    s.run(1000 * seconds)
    s.wires.filter = None
    return seen


@scenario(seeds=1)
def test_t23_old_packets_again(s: Script) -> None:
    """Everything that was ever sent is sent again, also by nobody, also after a restart: the ring does not move."""
    s.load(20)
    frames = _frames(s, 1)
    s.restart(2)
    s.ring(1, 2, 3, within=2000)
    frames += _frames(s, 1)
    since = s.now
    for i, (a, b, data) in enumerate(frames):
        s.wires.send(a, (b,), data)
        if i % 20 == 0:
            s.run(5)
    s.run(2000)
    s.at_most(0, "configurations", len(s.rings(since=since)))
    for n in s.ids:
        s.at_most(150, f"longest silence at {n} in ms", round(s.gap(n, since)))


@scenario(seeds=1)
def test_t23_another_cluster_key_or_incarnation(s: Script) -> None:
    """Frames of another cluster, of a wrong key, of incarnations that do not exist: counted, dropped, no effect."""
    s.load(20)
    s.run(500)
    since = s.now
    ring = s.hosts[1].core.core.ring.id
    me = s.hosts[3].processor
    voices = {
        "other cluster": Sealer("other", me, CheapSuite()),
        "stranger": Sealer("sim", Processor(9, 5, 5), CheapSuite()),
        "unknown incarnation": Sealer("sim", Processor(3, 5, 5), CheapSuite()),
    }
    bodies = (wire.Leave(ring), wire.Hurry(ring), Token(ring, 2**40, 0, 0, 0, 0, 0, False, []),
              wire.Beacon(ring, (3,), (), (s.hosts[1].processor, s.hosts[2].processor)), make_regular(ring, 1, 3, False, (b"x",)))
    for who, sealer in voices.items():
        s.say(f"frames of: {who}")
        for body in bodies:
            if who == "unknown incarnation" and isinstance(body, wire.Beacon):
                continue  # with the right key that would be a restart of node 3, and rightly so
            s.wires.send(3, (1, 2), sealer.seal(wire.encode(body)))
            s.run(3)
        broken = bytearray(sealer.seal(wire.encode(bodies[0])))
        broken[-1] ^= 1
        s.wires.send(3, (1, 2), bytes(broken))
        s.run(3)
    s.run(1000)
    s.at_most(0, "configurations", len(s.rings(since=since)))
    for reason in ("dropped_cluster", "dropped_unknown_node", "dropped_not_introduced", "dropped_seal"):
        s.until(f"1 counts {reason}", lambda reason=reason: s.counter(1, reason) > 0, within=0)  # type: ignore[misc]


@pytest.mark.parametrize("jitter", (False, True))
def test_t29_two_clusters_on_one_network(jitter: bool) -> None:
    """Every datagram of one cluster reaches the nodes of the other, with the same nodeids: both run as if alone."""
    alone = Script(3, seed="ours", jitter=jitter)
    ours = Script(3, seed="ours", jitter=jitter)
    theirs = Script(3, seed="theirs", jitter=jitter, cluster="other")
    ours.wires.filter, theirs.wires.filter = _heard_by(theirs), _heard_by(ours)
    for script, every in ((alone, 7), (ours, 7), (theirs, 11)):
        script.load(every)
    for _ in range(200):
        for script in (alone, ours, theirs):
            script.run(10)
    alone.kill(2)
    ours.kill(2)
    for script in (alone, ours, theirs):
        script.run(1000)
        script.end()
    assert ours.last(1) == (1, 3) and theirs.last(1) == (1, 2, 3)
    assert ours.counter(1, "dropped_cluster") > 500 and theirs.counter(1, "dropped_cluster") > 500
    assert ours.log == alone.log, "the neighbours cost nothing, not even time"
    for n in ours.ids:
        assert ours.seen[n].messages == alone.seen[n].messages


def _heard_by(other: Script) -> Filter:
    def hear(_source: int, target: int, data: bytes) -> int:
        host = other.hosts[target]
        if host.alive:
            host.datagram(data)
        return 0

    return hear


class Key(CheapSuite):
    """A cluster key of its own, by number."""

    def __init__(self, number: int) -> None:
        self.key_id = number

    def __call__(self, processor: Processor, /) -> CheapAead:
        return super().__call__(Processor(processor.nodeid, processor.boot, processor.engine ^ self.key_id << 56))


@scenario(cases=[(1, 2, 3), (3, 1, 2)], seeds=2)
def test_t28_the_key_is_changed_while_the_ring_runs(s: Script, case: tuple[int, ...]) -> None:
    """Each node learns the new key, then uses it, then forgets the old one, one node after the other: nobody notices."""
    old, new = Key(0), Key(7)
    s.load(10, size=200, safe=True)
    s.run(200)
    since = s.now
    for what, keys in (("knows the new key", (old, new)), ("uses it", (new, old)), ("forgets the old one", (new,))):
        for n in case:
            s.run(50)
            s.say(f"{n} {what}")
            s.hosts[n].core.core.sealer.rekey(*keys)
    s.run(500)
    s.at_most(0, "configurations", len(s.rings(since=since)))
    for n in s.ids:
        s.at_most(60, f"longest silence at {n} in ms", round(s.gap(n, since)))
    late = Sealer("sim", s.hosts[case[0]].processor, old)
    s.wires.send(case[0], (case[1],), late.seal(wire.encode(wire.Leave(s.hosts[1].core.core.ring.id))))
    s.run(10)
    s.until("a frame under the old key is refused", lambda: s.counter(case[1], "dropped_key") == 1, within=0)


@scenario(seeds=2)
def test_t28_a_node_that_missed_the_new_key(s: Script) -> None:
    """One node was not told: when the others use the new key, it is as if it were cut off, and it returns when it is told."""
    old, new = Key(0), Key(7)
    s.load(10, 1, 2)
    for n in (1, 2):
        s.hosts[n].core.core.sealer.rekey(old, new)
    for n in (1, 2):
        s.hosts[n].core.core.sealer.rekey(new)
    s.say("1 and 2 use the new key alone")
    s.ring(1, 2, within=1500)
    s.stands(2000, 1, 2)
    s.say("3 is told")
    s.hosts[3].core.core.sealer.rekey(new)
    s.ring(1, 2, 3, within=35_000)
