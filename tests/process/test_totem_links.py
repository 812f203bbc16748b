# SPDX-License-Identifier: GPL-2.0-only
"""Real engines on real (virtual) networks: small MTUs, several links, faults of a link, IPv6, multicast, keys, death of a process."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from membership.api import Processor
from membership.totem import segment
from membership.totem.aes import AesGcm
from membership.totem.seal import Sealer
from tests.process.netlab import PORT, Child, NetLab, ip, write_config

KEY = bytes(range(32))
PATIENT = "detect_ms = 800\ntoken_ms = 2000\nconsensus_ms = 1200\n"
"A machine that runs other tests may stop a process for as long as the default detection takes: that is not what is tested here."


def write_keys(path: Path, *keys: bytes) -> None:
    path.write_text("".join(key.hex() + "\n" for key in keys))
    path.chmod(0o600)


@contextmanager
def cluster(lab: NetLab, folder: Path, addresses: dict[int, Sequence[str]], totem: str = "") -> Iterator[dict[int, Child]]:
    """A ring of all nodes, each with its own cluster.toml and keys in ``folder/N``."""
    children: dict[int, Child] = {}
    try:
        for node in lab.nodes:
            own = folder / str(node)
            own.mkdir()
            write_keys(own / "key", KEY)
            config = write_config(own / "cluster.toml", addresses, "key", PATIENT + totem)
            children[node] = Child(node, [str(config), str(own)], lab.space(node))
        for child in children.values():
            child.configured(list(lab.nodes), since=0)
        yield children
    finally:
        for child in children.values():
            child.end()


def everybody_gets(children: dict[int, Child], sender: int, text: str) -> None:
    since = {n: len(c.events) for n, c in children.items()}
    children[sender].say(f"submit {text}")
    for n, child in children.items():
        child.wait(f"the message of {len(text)} bytes", lambda e: e.get("text") == text, since=since[n])


def io(child: Child) -> dict[str, int]:
    counters = child.status()["io"]
    assert isinstance(counters, dict)
    return counters


def rings(children: dict[int, Child]) -> dict[int, int]:
    return {n: len(c.rings()) for n, c in children.items()}


def test_large_messages_over_a_small_mtu_and_a_path_that_shrinks(tmp_path: Path) -> None:
    """T19: frames of any length over 1500 bytes, IPv6, and over 1300 when the path changes under a running ring."""
    with NetLab(3, mtu=1500) as lab, cluster(lab, tmp_path, {n: [lab.six(n)] for n in lab.nodes}) as children:
        everybody_gets(children, 1, "a" * 60_000)
        everybody_gets(children, 2, "b" * 200_000)
        before = rings(children)
        lab.set_mtu(1, 0, 1300)
        everybody_gets(children, 1, "c" * 60_000)
        lab.set_mtu(1, 0, 1500)
        everybody_gets(children, 3, "d" * 60_000)
        assert rings(children) == before, "no configuration changed"
        for child in children.values():
            counters = io(child)
            assert not counters.get("gso_refused") and not counters.get("send_too_large"), counters


def test_a_killed_process_is_known_at_once(tmp_path: Path) -> None:
    """The guardian tells: no timeout is waited for. A clean leave tells by itself, and no guardian remains of it."""
    with NetLab(3) as lab, cluster(lab, tmp_path, {n: [lab.four(n)] for n in lab.nodes}) as children:
        guardians = {n: child.status()["guardian"] for n, child in children.items()}
        since = {n: len(children[n].events) for n in (2, 3)}
        killed = children[1].kill()
        for n in (2, 3):
            children[n].wait("evidence", lambda e: e["kind"] == "health" and e["nodeid"] == 1, since=since[n])
            conf = children[n].configured([2, 3], since=since[n])
            assert int(str(conf["t"])) - killed < 800_000_000, "nobody waited for the silence to last"
        assert any(e.get("what") == "process_dead" for n in (2, 3) for e in children[n].events)
        children[2].say("leave")
        children[2].wait("goodbye", lambda e: e["kind"] == "left")
        children[3].configured([3])
        assert not [e for e in children[3].events if e["kind"] == "health" and e["nodeid"] == 2 and e["what"] == "process_dead"]
        children[2].process.wait(5)
        children[1].process.wait(5)
        for n in (1, 2):
            assert not alive(guardians[n]), f"the guardian of node {n} is still there"


def alive(pid: object) -> bool:
    """Whether process ``pid`` runs; waits a little for one that is about to end."""
    descriptor = -1
    try:
        descriptor = os.pidfd_open(int(str(pid)))
    except ProcessLookupError:
        return False
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    try:
        return not ready.poll(2000)
    finally:
        os.close(descriptor)


def steady(children: dict[int, Child], text: str, rounds: int) -> None:
    """Messages from everybody, one after the other, all delivered everywhere."""
    for i in range(rounds):
        for n in children:
            everybody_gets(children, n, f"{text} {n} {i}")


def two_links(lab: NetLab) -> dict[int, Sequence[str]]:
    return {n: [lab.four(n, 0), lab.six(n, 1)] for n in lab.nodes}


def answered(child: Child, link: int) -> dict[str, int]:
    """Answers of each peer on the link so far."""
    peers = child.status()["links"]["peers"]  # type: ignore[index]
    return {peer: of["paths"][link]["answered"] for peer, of in peers.items()}


def test_a_link_that_fails_changes_no_configuration(tmp_path: Path) -> None:
    """T20 and more: IPv4 on one link, IPv6 on the other; a link cut where nobody is told, a cable pulled, the other link cut."""
    with NetLab(3, links=2) as lab, cluster(lab, tmp_path, two_links(lab)) as children:
        before = rings(children)
        steady(children, "both", 2)
        lab.cut(2, 0)
        steady(children, "node 2 lost link 0", 3)
        everybody_gets(children, 2, "x" * 30_000)
        lab.mend(2, 0)
        for n in lab.nodes:
            lab.unplug(n, 1)
        steady(children, "link 0 only", 3)
        for n in lab.nodes:
            lab.plug(n, 1)
        # The kernels look for each other's addresses first, which takes a second if they tried too early: that is no link yet.
        for child in children.values():
            answers, end = answered(child, 1), time.monotonic() + 20
            while any(answered(child, 1)[peer] == answers[peer] for peer in answers):
                assert time.monotonic() < end, "the spare link is not tried"
                child.read(0.05)
        for n in lab.nodes:
            lab.cut(n, 0)
        steady(children, "link 1 only", 3)
        everybody_gets(children, 3, "y" * 30_000)
        assert rings(children) == before, "no configuration changed"
        hints = children[2].status()["counters"]
        assert isinstance(hints, dict) and hints.get("hint_link_down") and hints.get("hint_link_up")


def test_a_flapping_link_is_not_noticed_above(tmp_path: Path) -> None:
    """T20: one of two links comes and goes once a second, while messages flow."""
    with NetLab(3, links=2) as lab, cluster(lab, tmp_path, two_links(lab)) as children:
        before = rings(children)
        slowest = 0.0
        for second in range(4):
            for change in (lab.cut, lab.mend):
                change(2, 0)
                end = time.monotonic() + 0.5
                while (began := time.monotonic()) < end:
                    everybody_gets(children, 2, f"{second} {change.__name__} {began}")
                    slowest = max(slowest, time.monotonic() - began)
        assert rings(children) == before, "no configuration changed"
        assert slowest < 1.0, f"a message took {slowest:.2f} s"


def test_multicast_and_whom_it_does_not_reach(tmp_path: Path) -> None:
    groups = 'multicast = ["239.192.54.5"]\n'
    with NetLab(3) as lab, cluster(lab, tmp_path, {n: [lab.four(n)] for n in lab.nodes}, groups) as children:
        before = rings(children)
        sent = lab.sent(1, 0)
        for i in range(20):
            everybody_gets(children, 1, f"{i} " + "z" * 50_000)
        sent = lab.sent(1, 0) - sent
        assert sent < 1.5 * 20 * 50_000, f"{sent} bytes for 20 messages of 50,000: each went once, not to each node"
        lab.deafen(3, 0)
        for i in range(30):
            everybody_gets(children, 1, f"{i} " + "d" * 500)
        status = children[1].status()
        assert status["links"]["deaf"] == [3], status  # type: ignore[index]
        assert rings(children) == before


def test_multicast_over_ipv6(tmp_path: Path) -> None:
    groups = 'multicast = ["ff15::5405"]\n'
    with NetLab(3) as lab, cluster(lab, tmp_path, {n: [lab.six(n)] for n in lab.nodes}, groups) as children:
        sent = lab.sent(1, 0)
        for i in range(20):
            everybody_gets(children, 1, f"{i} " + "z" * 50_000)
        sent = lab.sent(1, 0) - sent
        assert sent < 1.5 * 20 * 50_000, f"{sent} bytes for 20 messages of 50,000"


def test_large_segments_that_vanish_unseen(tmp_path: Path) -> None:
    """A black hole (T4): a hop drops what is longer than 1300 bytes, and says nothing."""
    with NetLab(3) as lab, cluster(lab, tmp_path, {n: [lab.four(n)] for n in lab.nodes}) as children:
        before = rings(children)
        lab.swallow(2, 0, longer_than=1300)
        for i in range(30):
            everybody_gets(children, 1, f"{i} " + "h" * 20_000)
        repaired = counter(children[1], "repaired")
        for i in range(20):
            everybody_gets(children, 1, f"again {i} " + "h" * 20_000)
        assert counter(children[1], "repaired") == repaired, "the path to node 2 is known to be smaller now"
        assert rings(children) == before


def counter(child: Child, name: str) -> int:
    counters = child.status()["counters"]
    assert isinstance(counters, dict)
    return int(counters.get(name, 0))


def test_link_local_addresses(tmp_path: Path) -> None:
    """IPv6 addresses that mean something on one interface only, of the same name everywhere."""
    with NetLab(3) as lab:
        for n in lab.nodes:
            ip("address", "add", f"fe80::{n}/64", "dev", "link0", "nodad", netns=lab.space(n))
        with cluster(lab, tmp_path, {n: [f"fe80::{n}%link0"] for n in lab.nodes}) as children:
            steady(children, "local", 1)
            everybody_gets(children, 2, "l" * 30_000)
            children[1].kill()
            children[2].configured([2, 3])


def test_another_cluster_and_garbage_on_the_same_port_are_harmless(tmp_path: Path) -> None:
    """T29: forged segments too."""
    with NetLab(3) as lab, cluster(lab, tmp_path, {n: [lab.four(n)] for n in lab.nodes}) as children:
        before = rings(children)
        with lab.inside(3):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rng = random.Random(29)
        other = Sealer("other", Processor(2, 5, 5), AesGcm(KEY))
        stolen = Sealer("udp", Processor(2, 5, 5), AesGcm(bytes(32)))
        with sock:
            for i in range(300):
                head = segment.HEADER.pack(segment.MAGIC, rng.randrange(8), rng.randrange(9), rng.randrange(65536), 2, 5, i)
                for data in (rng.randbytes(rng.randrange(1400)), other.seal(rng.randbytes(50)), stolen.seal(rng.randbytes(50)),
                             head + rng.randbytes(rng.randrange(1300)), b"VC" + rng.randbytes(60)):
                    sock.sendto(data, (lab.four(1), PORT))
        steady(children, "undisturbed", 3)
        assert rings(children) == before
        status = children[1].status()
        counters = status["counters"]
        assert isinstance(counters, dict)
        assert counters["dropped_cluster"] == 300 and counters["dropped_key"] >= 290, counters
        assert io(children[1])["segment_malformed"] > 0


def test_keys_are_rotated_while_messages_flow(tmp_path: Path) -> None:
    """T28: three rounds over all nodes; at no time are two nodes unable to read each other, and at the end the old key is no good."""
    new = bytes(range(100, 132))
    with NetLab(3) as lab, cluster(lab, tmp_path, {n: [lab.four(n)] for n in lab.nodes}) as children:
        before = rings(children)
        for number, keys in enumerate(((KEY, new), (new, KEY), (new,))):
            for n, child in children.items():
                write_keys(tmp_path / str(n) / "key", *keys)
                child.say(f"reload {tmp_path / str(n) / 'cluster.toml'}")
                told = child.wait("the new keys", lambda e: e["kind"] == "reloaded")
                assert "error" not in told, told
                steady(children, f"round {number} node {n}", 1)
        assert rings(children) == before
        assert all(not counter(child, "dropped_key") for child in children.values())
        with lab.inside(3):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            sock.sendto(Sealer("udp", Processor(2, 5, 5), AesGcm(KEY)).seal(b"old"), (lab.four(1), PORT))
        everybody_gets(children, 2, "after")
        assert counter(children[1], "dropped_key") == 1
        killed = children[2].kill()
        conf = children[1].configured([1, 3])
        assert int(str(conf["t"])) - killed < 2_000_000_000, "the guardian knows the new key"


def test_a_node_is_added_and_removed_while_the_others_run(tmp_path: Path) -> None:
    with NetLab(3) as lab:
        everybody = {n: [lab.four(n)] for n in lab.nodes}
        two = {n: everybody[n] for n in (1, 2)}
        children: dict[int, Child] = {}
        try:
            for n in lab.nodes:
                own = tmp_path / str(n)
                own.mkdir()
                write_keys(own / "key", KEY)
                config = write_config(own / "cluster.toml", everybody if n == 3 else two, "key")
                if n != 3:
                    children[n] = Child(n, [str(config), str(own)], lab.space(n))
            for n in (1, 2):
                children[n].configured([1, 2], since=0)
            for n in (1, 2):
                write_config(tmp_path / str(n) / "cluster.toml", everybody, "key")
                children[n].say(f"reload {tmp_path / str(n) / 'cluster.toml'}")
                assert "error" not in children[n].wait("reload", lambda e: e["kind"] == "reloaded")
            children[3] = Child(3, [str(tmp_path / "3" / "cluster.toml"), str(tmp_path / "3")], lab.space(3))
            for child in children.values():
                child.configured([1, 2, 3], since=0)
            for n in (1, 2):
                write_config(tmp_path / str(n) / "cluster.toml", two, "key")
                children[n].say(f"reload {tmp_path / str(n) / 'cluster.toml'}")
            for n in (1, 2):
                children[n].configured([1, 2])
            everybody_gets({n: children[n] for n in (1, 2)}, 2, "without node 3")
            before = len(children[1].rings())
            everybody_gets({n: children[n] for n in (1, 2)}, 1, "and it disturbs nobody")
            assert len(children[1].rings()) == before
            write_config(tmp_path / "1" / "cluster.toml", {1: ["10.99.0.77"], 2: two[2]}, "key")
            children[1].say(f"reload {tmp_path / '1' / 'cluster.toml'}")
            assert "restart vcsd" in str(children[1].wait("refusal", lambda e: e["kind"] == "reloaded"))
        finally:
            for child in children.values():
                child.end()


def ignores(pid: int, number: signal.Signals) -> bool:
    """A process that has only just begun does not yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigIgn:")[1].split()[0], 16) >> (number - 1) & 1)


def test_a_guardian_that_dies_is_replaced(tmp_path: Path) -> None:
    with NetLab(3) as lab, cluster(lab, tmp_path, {n: [lab.four(n)] for n in lab.nodes}) as children:
        before = rings(children)
        first = int(str(children[1].status()["guardian"]))
        while not ignores(first, signal.SIGTERM):
            children[1].read(0.05)
        os.kill(first, signal.SIGTERM)  # does nothing: a stopped service ends by its engine
        os.kill(first, signal.SIGKILL)
        children[1].wait("its end noticed", lambda e: e.get("name") == "guardian_ended")
        while not (second := children[1].status()["guardian"]):
            children[1].read(0.05)
        assert second != first and rings(children) == before
        everybody_gets(children, 1, "after")
        since = {n: len(children[n].events) for n in (2, 3)}
        children[1].kill()
        for n in (2, 3):
            children[n].configured([2, 3], since=since[n])
        assert any(e.get("what") == "process_dead" for n in (2, 3) for e in children[n].events)
