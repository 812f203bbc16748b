# SPDX-License-Identifier: GPL-2.0-only
"""The faults. A story breaks something and says who must be fenced for it; what else must hold is judged for all alike (trial.py).

Who is hit, where it does not matter, follows from the seed. A story returns when the fault is over; then the network is whole, the power
switch works, and the machines have to find back to full strength by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from vcslab.cluster import MOUNTPOINT
from vcslab.story import check

from tests.cluster.faults.arena import Arena, Expect
from tests.cluster.faults.trial import Fault
from tests.cluster.faults.tuning import BACK_S, LEASE_MS, NODES, SOON_S

HOG = "/opt/vcs/src/tests/cluster/memory_hog.py"
EDGE_MIB, SHORT_KIB = 16, 40 << 10
WATCHED_S = 8.0
"How long a story watches that nothing happens."


def _set(*nodes: int) -> frozenset[int]:
    return frozenset(nodes)


def _recovering(a: Arena, nodes: Iterable[int], since: int) -> None:
    """Until the first kernel of ``nodes`` has been given a start."""
    survivors = list(nodes)
    a.wait(lambda: a.traced("vcs_group_start", survivors, since), SOON_S, f"a start on one of {survivors}")


def _joining(a: Arena, node: int, boot: int) -> None:
    """Until the node's next life is in the middle of joining the file system's lockspace."""

    def joins() -> bool:
        return node in a.boots and a.boots[node].number > boot and bool(a.traced("vcs_group_join", [node], 0))

    a.wait(joins, BACK_S, f"node {node} to join")


def _being_fenced(a: Arena, node: int) -> None:
    a.wait(lambda: node in a.lab.power.cutting, SOON_S, f"somebody to have node {node} cut off")


def _says(a: Arena, node: int, event: str) -> bool:
    """Has a daemon of the node's present life noted that?"""
    return any(record.get("event") == event for record in a.lab[node].events())


# --- power ------------------------------------------------------------------------------------------------------------


def cut_1(a: Arena) -> Expect:
    """Power cut of node 1, which fences the others when they fail."""
    a.cut(1)
    return Expect(_set(1))


def cut_2(a: Arena) -> Expect:
    """Power cut of node 2."""
    a.cut(2)
    return Expect(_set(2))


def cut_3(a: Arena) -> Expect:
    """Power cut of node 3."""
    a.cut(3)
    return Expect(_set(3))


def cut_two(a: Arena) -> Expect:
    """Power cut of two nodes at once: the third waits, without a quorum, until they are back."""
    pair = a.pick(2)
    a.cut(*pair)
    return Expect(may=_set(*pair))


def cut_all(a: Arena) -> Expect:
    """Power cut of all nodes at once."""
    a.cut(*NODES)
    return Expect(may=_set(*NODES))


def cut_in_recovery(a: Arena) -> Expect:
    """A second power cut in the middle of the recovery from the first."""
    first, second = a.pick(2)
    since = a.cut(first)
    _recovering(a, a.others(first), since)
    a.cut(second)
    return Expect(_set(first), _set(second))


def cut_joiner(a: Arena) -> Expect:
    """A node that boots and joins loses its power again in the middle of the join."""
    [node] = a.pick()
    boot = a.boots[node].number
    a.cut(node)
    _joining(a, node, boot)
    a.cut(node)
    return Expect(_set(node))


def cut_in_join(a: Arena) -> Expect:
    """A member loses its power while another node joins."""
    joiner, member = a.pick(2)
    boot = a.boots[joiner].number
    a.cut(joiner)
    _joining(a, joiner, boot)
    a.cut(member)
    return Expect(_set(joiner), _set(member))


# --- fencing ----------------------------------------------------------------------------------------------------------


def cut_in_fencing(a: Arena) -> Expect:
    """While node 1 has another one fenced, the third loses its power."""
    victim, third = (2, 3) if a.random.random() < 0.5 else (3, 2)
    a.lab.power.hold()
    a.cut(victim)
    _being_fenced(a, victim)
    a.cut(third)
    a.lab.power.release()
    return Expect(may=_set(victim, third))


def cut_fencer(a: Arena) -> Expect:
    """The node that is having another one fenced loses its power."""
    [victim] = a.random.sample((2, 3), 1)
    a.lab.power.hold()
    a.cut(victim)
    _being_fenced(a, victim)
    a.cut(1)
    a.lab.power.release()
    return Expect(may=_set(victim, 1))


def fence_fails(a: Arena) -> Expect:
    """The power switch fails twice, then works: nobody starts before it does, and nobody has to help."""
    [victim] = a.pick()
    a.kept_off.add(victim)
    a.lab.power.set_broken(victim)
    since = a.cut(victim)

    def failed() -> int:
        return sum(r.victim == victim and r.action == "off" and r.code != 0 and r.asked_ns > since for r in a.lab.power.history)

    a.wait(lambda: failed() >= 2, SOON_S, f"two failed fences of node {victim}")
    check(not a.traced("vcs_group_start", a.others(victim), since), "a start before the fence")
    a.lab.power.set_working()
    a.wait_fenced(victim, since)
    return Expect(_set(victim))


def power_returns(a: Arena) -> Expect:
    """A node that has power again before its fence can be confirmed: it is cut off once, boots, and its new boot ends the fence."""
    [victim] = a.pick()
    boot = a.boots[victim].number
    a.always_on.add(victim)
    a.lab.network.isolate(victim)
    a.wait(lambda: a.lab[victim].boots > boot, SOON_S, f"node {victim} to be cut off, and on again")
    a.lab.network.heal()
    return Expect(_set(victim), once=True)


def amnesia(a: Arena) -> Expect:
    """Node 3 is cut off and cannot be fenced; 1 and 2 lose their power and boot: they must not start while 3 may write (S6). They wait for
    it, and it is no newcomer when they meet: its fence goes on."""
    since = a.lab.network.isolate(3)
    a.lab.power.set_broken(3)
    a.wait(lambda: any(r.victim == 3 and r.code for r in a.lab.power.history if r.asked_ns > since), SOON_S, "a failed fence of node 3")
    boots = {n: a.boots[n].number for n in (1, 2)}
    lost = a.cut(1, 2)
    a.wait(lambda: all(a.boots[n].number > boots[n] for n in (1, 2)), BACK_S, "nodes 1 and 2 to boot")
    a.vcs.wait(lambda: all(_says(a, n, "waiting_for_all") for n in (1, 2)), BACK_S, "1 and 2 to wait for node 3")
    time.sleep(WATCHED_S)
    check(a.lab[3].on and not a.traced("vcs_group_start", (1, 2), lost), "1 and 2 were given a start while node 3 could write")
    a.lab.power.set_working()
    a.lab.network.heal()
    a.wait_fenced(3, lost)
    return Expect(_set(3))


# --- daemons ----------------------------------------------------------------------------------------------------------


def _kill(a: Arena, node: int, module: str) -> None:
    """And until there is another one."""
    old = a.vcs.daemon_pid(node, module)
    a.vcs.kill_daemon(node, module)
    a.vcs.wait(lambda: a.vcs.daemon_pid(node, module) not in (0, old), SOON_S, f"another {module} on node {node}")


def kill_vcsd(a: Arena) -> Expect:
    """SIGKILL of one vcsd: its unit starts it again, the node was detached meanwhile, nobody is fenced (S16)."""
    [node] = a.pick()
    _kill(a, node, "vcs.vcsd")
    return Expect(may=a.short_lease(node))


def kill_glue(a: Arena) -> Expect:
    """SIGKILL of one dlm_glue: nobody is fenced."""
    _kill(a, a.pick()[0], "dlm_glue")
    return Expect()


def kill_all_daemons(a: Arena) -> Expect:
    """SIGKILL of every daemon of the cluster at once: a rebuild from the kernels (S19), nobody is fenced."""
    pids = {n: [a.vcs.daemon_pid(n, module) for module in ("vcs.vcsd", "dlm_glue")] for n in NODES}
    check(all(all(p) for p in pids.values()), f"daemons: {pids}")
    a.lab.each(lambda m: m.run(f"kill -9 {' '.join(map(str, pids[m.spec.node]))}", check=True), *NODES)
    return Expect(may=a.short_lease(*NODES))


# --- pauses -----------------------------------------------------------------------------------------------------------


def _pause(a: Arena, seconds: float) -> int:
    [victim] = a.pick()
    machine = a.lab[victim]
    boot = machine.boots
    machine.freeze()
    end = time.monotonic() + seconds
    while time.monotonic() < end and machine.on and machine.boots == boot:
        time.sleep(0.05)
    if machine.on and machine.boots == boot:
        machine.resume()
    return victim


def pause_1(a: Arena) -> Expect:
    """A machine stands still for 1 s."""
    return Expect(may=_set(_pause(a, 1)))


def pause_5(a: Arena) -> Expect:
    """A machine stands still for 5 s."""
    victim = _pause(a, 5)
    return Expect(_set(victim)) if a.power else Expect(may=_set(victim))  # its lease may be longer


def pause_30(a: Arena) -> Expect:
    """A machine stands still for 30 s, and the power switch fails to cut it off all that time."""
    [victim] = a.pick()
    machine = a.lab[victim]
    a.lab.power.hold()
    a.lab.splats.allow(r"soft lockup - CPU#\d+ stuck for (2\d|3\d)s!", machine.name, machine.boots)  # about the pause itself
    since = machine.freeze()
    time.sleep(30)
    check(machine.on and not a.traced("vcs_group_start", a.others(victim), since), "a start while the paused machine could write")
    machine.resume()
    time.sleep(0.5)
    a.lab.power.release()
    a.wait_fenced(victim, since)
    return Expect(_set(victim))


# --- network ----------------------------------------------------------------------------------------------------------


def partition_2_1(a: Arena) -> Expect:
    """Two nodes here, one there: that one is fenced while it still runs and writes."""
    [single] = a.pick()
    since = a.lab.network.partition(set(a.others(single)), {single})
    a.wait_fenced(single, since)
    return Expect(_set(single))


def _apart(a: Arena, seconds: float) -> None:
    """Every node alone, for so long at least, and until every kernel knows that there is no quorum."""
    end = time.monotonic() + seconds
    a.lab.network.partition({1}, {2}, {3})
    a.wait(lambda: not any(a.vcs.view(n)["quorate"] for n in NODES), SOON_S, "nobody to be quorate")
    time.sleep(max(0.0, end - time.monotonic()))
    check(not any(a.vcs.view(n)["quorate"] for n in NODES), "somebody alone was quorate")
    a.lab.network.heal()


def partition_1_1_1(a: Arena) -> Expect:
    """Every node alone, until nobody has a quorum: nobody is reset."""
    _apart(a, 2)
    return Expect()


def blackout(a: Arena) -> Expect:
    """No network at all for 10 s, as when a switch boots: nobody is reset (S7), but by a lease that is shorter than that."""
    _apart(a, 10)
    return Expect(may=a.short_lease(*NODES))


def long_blackout(a: Arena) -> Expect:
    """No network at all until all leases have run out: with a power switch, nobody is reset either (S7)."""
    _apart(a, 1.25 * LEASE_MS / 1000)
    return Expect()


def one_way(a: Arena) -> Expect:
    """One node does not hear another one, which hears it: one of them goes, and the rest goes on."""
    deaf, heard = a.pick(2)
    since = a.lab.network.block(heard, deaf, oneway=True)
    a.wait(lambda: {deaf, heard} & set(a.fenced(since)), SOON_S + LEASE_MS / 1000, "one of the two to be fenced")
    a.lab.network.heal()
    return Expect(may=_set(deaf, heard), least=1)


def link_flap(a: Arena) -> Expect:
    """A link that goes away for 150 ms, five times."""
    [node] = a.pick()
    for _ in range(5):
        a.lab.network.isolate(node)
        time.sleep(0.15)
        a.lab.network.heal()
        time.sleep(0.35)
    return Expect(may=_set(node))


# --- scarcity ---------------------------------------------------------------------------------------------------------


def slow_disk(a: Arena) -> Expect:
    """The shared disk of one node does ten requests a second for 10 s: that is slow, not dead."""
    [node] = a.pick()
    a.lab[node].throttle(iops=10)
    time.sleep(10)
    a.lab[node].throttle()
    return Expect()


def no_memory(a: Arena) -> Expect:
    """A node has no memory left, and another one loses its power."""
    starved, victim = a.pick(2)
    machine = a.lab[starved]
    hog = machine.spawn(f"exec python3 -S {HOG} {MOUNTPOINT}/hog {EDGE_MIB}", log=f"hog{len(a.rows)}")

    def short() -> bool:
        lines = hog.log.read_text().splitlines()[-4:] if hog.log.exists() else []
        return sum(f'"available_kib": {n},' in line for line in lines for n in _numbers(line) if n < SHORT_KIB) >= 3

    a.wait(short, BACK_S, f"node {starved} to be short of memory")
    since = a.cut(victim)
    a.wait_fenced(victim, since)
    _recovering(a, a.others(victim), since)
    time.sleep(3)
    machine.run(f"kill {hog.pid}", check=True)
    a.wait(lambda: hog.rc is not None, 30, "the hog to end")
    return Expect(_set(victim))


def _numbers(line: str) -> list[int]:
    return [int(w) for w in line.replace(",", " ").split() if w.isdigit()]


CLASSES: dict[str, tuple[Callable[[Arena], Expect], ...]] = {
    "power": (cut_1, cut_2, cut_3, cut_two, cut_all),
    "cascade": (cut_in_recovery, cut_joiner, cut_in_join),
    "fencing": (cut_in_fencing, cut_fencer, fence_fails, power_returns, amnesia),
    "daemons": (kill_vcsd, kill_glue, kill_all_daemons),
    "pause": (pause_1, pause_5, pause_30),
    "network": (partition_2_1, partition_1_1_1, blackout, long_blackout, one_way, link_flap),
    "scarcity": (slow_disk, no_memory),
}
SWITCH = {*CLASSES["fencing"], pause_30, long_blackout}
"These make no sense without a power switch."
MATRIX = tuple(Fault(f.__name__.replace("_", "-"), kind, f, f in SWITCH) for kind, of in CLASSES.items() for f in of)


PROVEN: frozenset[Callable[[Arena], Expect]] = frozenset({
    cut_1, cut_2, cut_3, cut_two, cut_all, cut_in_recovery, cut_in_join, cut_in_fencing, cut_fencer, fence_fails,
    power_returns, amnesia, kill_vcsd, kill_glue, kill_all_daemons, pause_1, pause_5, pause_30, partition_2_1, partition_1_1_1, blackout,
    long_blackout, link_flap, slow_disk, no_memory,
})  # fmt: skip
"Seen to pass in two runs, and in a known time (docs/faults.md has the table): `make test` draws from these."


def subset(seed: int) -> list[Fault]:
    """One of each class, of those that are proven where there are any. Which, follows from the seed: many commits see all of them."""
    chosen = []
    for kind in CLASSES:
        of = [f for f in MATRIX if f.kind == kind]
        of = [f for f in of if f.story in PROVEN] or of
        chosen.append(of[seed % len(of)])
    return chosen
