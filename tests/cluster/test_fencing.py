# SPDX-License-Identifier: GPL-2.0-only
"""Fencing by two methods on three machines: the first device fails, the second works, and everybody tells the same story of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness.pytest_plugin import Factory
from vcslab.cluster import HANDLE, VcsCluster
from vcslab.evidence import no_start_before_fence, trace_on
from vcslab.story import wait_group

from tests.cluster.commands import ask
from tests.cluster.conftest import NODES, PATIENT

pytestmark = pytest.mark.vm

BOARD = "/usr/local/sbin/fence_board"
SCRIPT = r"""#!/bin/sh
# A management board that nobody can log in to: it describes itself as fence_lab does, and does nothing else.
read -r line
[ "$line" = action=metadata ] && { echo action=metadata | fence_lab; exit; }
echo "Unable to connect/login to fencing device" >&2
exit 1
"""


def two_methods() -> str:
    """cluster.toml of the three nodes: a board, then the lab's power switch."""
    parts = [f'[cluster]\nname = "{HANDLE}"\n']
    for n in NODES:
        parts.append(f'[[node]]\nid = {n}\nname = "node{n}"\naddress = "10.77.0.{n}"\nfence = {{ plug = "node{n}" }}\n')
        parts += [f'[[node.method]]\ndevices = ["{device}"]\n' for device in ("board", "switch")]
    parts.append(f'[[fence_device]]\nname = "board"\nagent = "{BOARD}"\n[[fence_device]]\nname = "switch"\nagent = "fence_lab"\n')
    parts.append("[fencing]\ntries = 2\nretry_ms = 1500\n")
    return "\n".join(parts) + PATIENT


@pytest.fixture(scope="module")
def two(module_cluster: Factory) -> VcsCluster:
    """Three nodes with GFS2 mounted, quorate, by that configuration."""
    lab = module_cluster(nodes=3, shared_disk_mib=256)
    vcs = VcsCluster(lab, extra=PATIENT)
    vcs.toml = two_methods()
    lab.each(lambda m: m.write(BOARD, SCRIPT, mode=0o755))
    lab.each(lambda m: vcs.install(m.spec.node))
    trace_on(vcs, *NODES)
    for n in NODES:
        vcs.start(n)
    vcs.wait_quorate(*NODES)
    vcs.wait_dlm(*NODES)
    vcs.mkfs()
    vcs.mount_on(*NODES)
    wait_group(vcs, NODES)
    return vcs


def test_the_second_method_works_and_all_nodes_tell_the_same_story(two: VcsCluster) -> None:
    """The configuration is right by `vcs config check`; node 3 loses power; the board fails twice, by two nodes; `vcs why` says so while
    the lockspace waits; the switch fences; `vcs failover last` agrees on all nodes that saw it."""
    assert "no error" in two[1].run("vcs config check", check=True).out
    two.lab.power.hold()
    cut_ns = two.now_ns()
    two[3].power_off()

    def waits() -> str:
        return "\n".join(w["what"] for w in ask(two, 2, "why", "waits") if w["subject"] == "lockspace shared")

    two.wait(lambda: "failed" in waits(), 60, "`vcs why` to name the method that failed")
    text = waits()
    assert text.startswith("lockspace shared waits for node3 (node 3) to be fenced; method board failed"), text
    assert "Unable to connect/login to fencing device" in text, text
    two.lab.power.release()

    no_start_before_fence(two, (1, 2), 3, since_ns=cut_ns)
    wait_group(two, (1, 2))

    def told(n: int) -> Any:
        found = two[n].run("vcs failover last --json")
        return json.loads(found.out)["failover"] if found.rc == 0 else {}

    two.wait(lambda: all(told(n).get("complete") for n in (1, 2)), 30, "the failover to be over on both survivors")
    stories = [told(n) for n in (1, 2)]
    for story in stories:
        (victim,) = story["victims"]
        assert [(t["method"], t["ok"]) for t in victim["tries"]] == [("board", False), ("board", False), ("switch", True)]
        (group,) = [g for g in story["groups"] if g["name"] == "dlm:shared"]
        times = [group[k] for k in ("stopping_ms", "stopped_ms", "started_ms", "recovered_ms", "finished_ms")]
        assert times == sorted(times) and victim["fenced_ms"] <= group["started_ms"]
    one, other = stories
    assert one["rings"] == other["rings"] and one["members"] == other["members"]
    assert [g["id"] for g in one["groups"]] == [g["id"] for g in other["groups"]]
    history = ask(two, 1, "fence history", "fences")[-1]
    assert (history["nodeid"], history["result"], history["method"]) == (3, "fenced", "switch")
    print(two[1].run("vcs failover last --svg /tmp/last.svg", check=True).out)
    assert two[1].read("/tmp/last.svg").startswith("<svg ")
