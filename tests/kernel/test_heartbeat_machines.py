# SPDX-License-Identifier: GPL-2.0-only
"""Three machines with nothing but vcs.ko and vcs_heartbeat.ko: no daemon, no engine. They see each other live, die, and fall deaf."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from harness import Cluster, Machine
from harness.pytest_plugin import Factory
from harness.spec import Spawned

from vcs.heartbeat import MISSED

pytestmark = pytest.mark.vm

HANDLE = "beats"
INTERVAL_MS = 400
LATE_MS = 1000
"What a busy host may add; the figures are recorded."
KEY = "5a" * 32 + "\n"
TOML = f'[cluster]\nname = "{HANDLE}"\nkey_file = "/run/vcs/key"\n' + "".join(
    f'[[node]]\nid = {n}\nname = "node{n}"\naddress = "10.77.0.{n}"\n' for n in (1, 2, 3)
)


def start(machine: Machine) -> None:
    machine.write("/run/vcs/key", KEY, mode=0o600)
    machine.write("/run/vcs/cluster.toml", TOML)
    machine.run(f"vcs heartbeat start --config /run/vcs/cluster.toml --interval-ms {INTERVAL_MS}", 60, check=True)


def members(machine: Machine) -> str:
    return machine.read(f"/sys/kernel/vcs/{HANDLE}/view/members").strip()


def sees(cluster: Cluster, node: int, wanted: str) -> None:
    cluster.wait(lambda: members(cluster[node]) == wanted, 30, f"node {node} to see {wanted}")


class Watch:
    """A guest's own word on when it saw a change."""

    def __init__(self, cluster: Cluster, node: int, name: str) -> None:
        self.cluster, self.node = cluster, node
        self.job: Spawned = cluster[node].spawn(f"exec python3 -S -m tests.kernel.heartbeat_watch {HANDLE}", log=name)
        cluster.wait(lambda: len(self._lines()) == 1, 30, f"node {node} to watch")

    def _lines(self) -> list[str]:
        return self.job.log.read_text().splitlines() if self.job.log.exists() else []

    def saw(self) -> dict[str, Any]:
        self.cluster.wait(lambda: len(self._lines()) == 2, 30, f"node {self.node} to see a change")
        seen: dict[str, Any] = json.loads(self._lines()[1])
        return seen


def test_three_machines_with_two_modules_each(cluster: Factory, record_property: Callable[[str, object], None]) -> None:
    three = cluster(nodes=3)
    three.each(start)
    for node in (1, 2, 3):
        sees(three, node, "1-3")
        assert "vcsd" not in three[node].run("ps -eo args", check=True).out

    watches = {n: Watch(three, n, f"death-{n}") for n in (1, 2)}
    three[3].power_off()
    for node, watch in watches.items():
        seen = watch.saw()
        record_property(f"death_seen_by_{node}_ms", round(seen["heard_ms"]["3"]))
        assert seen["members"] == "1-2"
        assert seen["heard_ms"]["3"] < MISSED * INTERVAL_MS + LATE_MS

    three[3].boot()
    start(three[3])
    for node in (1, 2, 3):
        sees(three, node, "1-3")
    deaf, mute = Watch(three, 2, "deaf"), Watch(three, 1, "mute")
    shift = {n: three[n].measure_clock().boottime_ns for n in (1, 2)}
    cut_ns = three.network.block(1, 2, oneway=True)
    heard, unheard = deaf.saw(), mute.saw()
    deaf_ms, mute_ms = ((seen["seen_ns"] + shift[n] - cut_ns) / 1e6 for n, seen in ((2, heard), (1, unheard)))
    record_property("deaf_ms", round(deaf_ms))
    record_property("mute_ms", round(mute_ms))
    assert heard["members"] == "2-3" and deaf_ms < MISSED * INTERVAL_MS + LATE_MS
    assert unheard["members"] == "1,3" and mute_ms < (MISSED + 1) * INTERVAL_MS + LATE_MS
    three.network.heal()
    for node in (1, 2, 3):
        sees(three, node, "1-3")
    for node in (1, 2, 3):
        three[node].run(f"vcs heartbeat stop {HANDLE}", check=True)
        three[node].run("rmmod vcs_heartbeat vcs", check=True)
