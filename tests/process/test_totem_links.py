# SPDX-License-Identifier: GPL-2.0-only
"""Real engines on real (virtual) networks: small MTUs, several links, faults of a link, IPv6, multicast, keys, death of a process."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.process.netlab import Child, NetLab, write_config

KEY = bytes(range(32))
ALL = [1, 2, 3]


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
            config = write_config(own / "cluster.toml", addresses, "key", totem)
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
    slow = "token_ms = 5000\nconsensus_ms = 3000\n"
    with NetLab(3) as lab, cluster(lab, tmp_path, {n: [lab.four(n)] for n in lab.nodes}, slow) as children:
        guardians = {n: child.status()["guardian"] for n, child in children.items()}
        since = {n: len(children[n].events) for n in (2, 3)}
        killed = children[1].kill()
        for n in (2, 3):
            told = children[n].wait("evidence", lambda e: e["kind"] == "health", since=since[n])
            assert told["nodeid"] == 1
            conf = children[n].configured([2, 3], since=since[n])
            assert int(str(conf["t"])) - killed < 2_000_000_000, "far from the five seconds of a lost token"
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
