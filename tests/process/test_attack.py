# SPDX-License-Identifier: GPL-2.0-only
"""A real ring in network namespaces under attack by somebody on its wire without the key (tests/fuzz/attacker.py)."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.memory import resident_kb
from tests.process.netlab import PORT, ROOT, Child, NetLab
from tests.process.test_asymmetry import NODES, lab

__all__ = ["lab"]

FRAMES = int(os.environ.get("VCS_ATTACK_FRAMES", "60000"))
PINGS = 40
LATENCY_FACTOR = 20
"""By how much the attack may lengthen a message's way: the attacker, who sends twenty thousand frames a second from Python, and the
nodes that refuse them share two cores."""
RSS_GROWTH_KB = 2500


def latency(child: Child, others: list[Child], name: str) -> float:
    """Median time in seconds from a submit to its delivery at the sender."""
    took = []
    for i in range(PINGS):
        for other in others:
            other.read(0.001)  # who is not listened to stands still when its pipe is full
        began = time.monotonic()
        child.say(f"submit {name}.{i}")
        child.wait("the message", lambda e, i=i: e.get("text") == f"{name}.{i}", since=0 if not child.events else len(child.events))  # type: ignore[misc]
        took.append(time.monotonic() - began)
    return statistics.median(took)


@pytest.mark.root
def test_t23_an_attack_on_a_real_ring(lab: tuple[NetLab, dict[int, Child]], tmp_path: Path) -> None:
    """Tens of thousands of wrong frames a second with a member's addresses: no configuration changes, memory is flat."""
    net, children = lab
    others = [children[2], children[3]]
    calm = latency(children[1], others, "calm")
    before = {n: len(c.rings()) for n, c in children.items()}
    attack = subprocess.Popen(
        ["ip", "netns", "exec", net.space(3), sys.executable, "-m", "tests.fuzz.attacker", "link0", str(PORT), str(FRAMES), "7"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert attack.stdout is not None
    under: list[float] = []
    resident: list[int] = []
    pings = 0
    while attack.poll() is None:
        under.append(latency(children[1], others, f"under{pings}"))
        resident.append(resident_kb(children[1].process.pid))
        pings += 1
    said = attack.stdout.read()
    attack.stdout.close()
    assert f"sent {FRAMES}" in said, said
    for child in children.values():
        child.read(0.1)
    after = {n: len(c.rings()) for n, c in children.items()}
    assert after == before, {n: [e for e in c.events if e["kind"] != "message"][-6:] for n, c in children.items()}
    counters = children[1].status()["counters"]
    assert isinstance(counters, dict)
    refused = sum(v for k, v in counters.items() if k.startswith("dropped"))
    assert refused > FRAMES / 10, counters
    median = statistics.median(under)
    print(f"{FRAMES} frames, {refused} refused at node 1; latency {calm * 1e3:.2f} ms, under attack {median * 1e3:.2f} ms; "
          f"resident {resident[0]} to {resident[-1]} kB")
    assert median < LATENCY_FACTOR * calm + 0.02
    assert resident[-1] - resident[len(resident) // 3] < RSS_GROWTH_KB, resident
    for child in children.values():
        child.say("submit after")
    for child in children.values():
        child.wait("a message after it", lambda e: e.get("text") == "after", since=0)
    assert set(NODES) == set(children) and tmp_path.exists()
