# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own netlink client (tools/net/ynl/cli.py of Debian's kernel source) on our family, by our YAML alone: what it reads is
what `vcs` and our port read, and what it writes the kernel takes. Runs as root inside a virtual machine (see test_tools_vm.py)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.contract_world import World
from tests.kernel.guest_contract import KernelBackend
from vcs.model import Group, GroupFlags, Member, Phase

TREE = Path(os.environ.get("YNL_TREE", "/run/ynl"))
"Of the kernel's source, only the client; our YAML among its specs; PyYAML in `python`."
SPEC = TREE / "Documentation/netlink/specs/vcs.yaml"
MANY = 600
"Members of a view that does not fit one message."


def ynl(*words: str, values: dict[str, object] | None = None) -> subprocess.CompletedProcess[str]:
    """cli.py in an empty environment: nothing of ours is in its reach but the YAML (tests/unit/test_spec_schema.py checks that
    against the schema)."""
    argv = ["/usr/bin/python3", str(TREE / "tools/net/ynl/cli.py"), "--no-schema", "--spec", str(SPEC), "--output-json", *words]
    argv += ["--json", json.dumps(values)] if values else []
    return subprocess.run(argv, env={"PYTHONPATH": str(TREE / "python")}, capture_output=True, text=True, timeout=120, check=False)


def read(*words: str, **values: object) -> Any:
    done = ynl(*words, values=values)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def vcs(*words: str) -> Any:
    done = subprocess.run(["vcs", *words, "--json"], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Three groups, in a whole event, in a start and in a stop, and a cluster without a provider beside it."""
    backend = KernelBackend()
    world = World(backend)
    backend.port().cluster_add("beside", "other", 7)
    world.view()
    world.member(10, "whole", GroupFlags.PERSISTENT | GroupFlags.NEEDS_FENCE)
    started = world.consumer("started")
    world.stop(11, "started")
    started.ack(11, Phase.STOP)
    world.start(11, world.me, world.peer, name="started")
    world.consumer("stopped")
    world.stop(12, "stopped")
    yield world
    backend.clean()


def members(answer: list[dict[str, int]]) -> tuple[Member, ...]:
    return tuple(Member(m["nodeid"], m["incarnation"], m.get("votes", 1), m.get("join-id", 0)) for m in answer)


def words(flags: GroupFlags) -> set[str]:
    return {str(flag.name).lower().replace("_", "-") for flag in GroupFlags if flag and flag in flags}


def test_the_switch_is_the_same(world: World) -> None:
    info = world.reader.info()
    answer = read("--do", "info-get")
    assert (answer["api-version"], answer["incarnation"]) == (info.api_version, info.incarnation)
    assert {"groups", "fence", "lease"} <= set(answer["capabilities"])


def test_clusters_are_the_same(world: World) -> None:
    answers = {c["handle"]: c for c in read("--dump", "cluster-get")}
    clusters = world.reader.clusters()
    assert {c.handle for c in clusters} == set(answers) == {world.handle, "beside"}
    for c in clusters:
        a = answers[c.handle]
        assert (a["name"], a["nodeid"], a.get("provider", "")) == (c.name, c.nodeid, c.provider)
        assert (a["provider-state"].upper(), a["change-seq"]) == (c.provider_state.name, c.change_seq)
    status = vcs("status", "--handle", world.handle)["status"]
    assert (status["cluster"], status["nodeid"]) == (answers[world.handle]["name"], answers[world.handle]["nodeid"])
    assert status["provider"] == {"type": "user", "state": answers[world.handle]["provider-state"]}


def test_groups_are_the_same(world: World) -> None:
    answers = {g["group"]: g for g in read("--dump", "group-get", handle=world.handle)}
    groups = {g.name: g for g in world.reader.groups(world.handle)}
    assert answers.keys() == groups.keys() == {"whole", "started", "stopped"}
    for name, a in answers.items():
        same_group(a, groups[name])
    said = {g["name"]: g for g in vcs("groups", "--handle", world.handle)["groups"]}
    for name, a in answers.items():
        assert (said[name]["state"], said[name]["phase"]) == (a["group-state"], a["phase"])
        assert {f.replace("_", "-") for f in said[name]["flags"]} == set(a.get("group-flags", []))
        assert said[name]["nr_members"] == a["nr-members"]


def same_group(a: dict[str, Any], g: Group) -> None:
    assert (a["event"], a["phase"].upper(), a["acked-phase"].upper()) == (g.event, g.phase.name, g.acked_phase.name)
    assert (a["level"].upper().replace("-", "_"), set(a.get("group-flags", []))) == (g.level.name, words(g.flags))
    assert (a["group-state"].upper(), a["owner"], a["owner-epoch"]) == (g.state.name, g.owner, g.owner_epoch)
    assert members(a.get("member", [])) == g.members
    assert members(a.get("finished-member", [])) == g.finished_members
    assert members(a.get("started-member", [])) == g.started_members


def test_a_view_over_several_messages_is_the_same(world: World) -> None:
    world.view(world.me, *(Member(n, 0x1000 + n, votes=n % 3 + 1) for n in range(2, MANY + 1)))
    parts = read("--dump", "view-get", handle=world.handle)
    view = world.reader.view(world.handle)
    assert len(parts) > 1
    assert {(p["generation"], p["ring-seq"], p["ring-rep"], p["nr-members"]) for p in parts} == {
        (view.generation, view.ring.seq, view.ring.rep, MANY)
    }
    assert members([m for p in parts for m in p.get("member", [])]) == view.members


def test_what_it_writes_the_kernel_takes(world: World) -> None:
    assert read("--do", "cluster-add", handle="by-ynl", name="wire", nodeid=3) is None
    made = next(c for c in world.reader.clusters() if c.handle == "by-ynl")
    assert (made.name, made.nodeid) == ("wire", 3)


LISTENER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from lib import YnlFamily
family = YnlFamily(sys.argv[2], "")
family.ntf_subscribe("hints")
print("listening", flush=True)
sys.stdin.readline()
family.check_ntf()
print(json.dumps(family.async_msg_queue))
"""
"With its library: cli.py itself can only wait for a time to pass."


def test_it_understands_the_hints(world: World) -> None:
    argv = ["/usr/bin/python3", "-c", LISTENER, str(TREE / "tools/net/ynl"), str(SPEC)]
    listener = subprocess.Popen(
        argv, env={"PYTHONPATH": str(TREE / "python")}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None and listener.stdout.readline() == "listening\n"
    generation = world.view()
    world.stop(13, "stopped")
    out, _ = listener.communicate("now\n", timeout=60)
    hints = [(hint["name"], hint["msg"]) for hint in json.loads(out)]
    assert ("view-hint", {"handle": world.handle, "generation": generation}) in hints
    stopped = next(message for name, message in hints if name == "group-hint" and message["group"] == "stopped")
    assert (stopped["handle"], stopped["event"], stopped["phase"]) == (world.handle, 13, "stop")


def test_a_refusal_says_why(world: World) -> None:
    done = ynl("--do", "cluster-add", values={"handle": world.handle, "name": "wire", "nodeid": 3})
    assert done.returncode == 1
    assert "File exists" in done.stdout
    assert "extack: {'msg'" in done.stdout, done.stdout
    beyond = ynl("--do", "cluster-add", values={"handle": "x" * 65, "name": "wire", "nodeid": 3})
    assert beyond.returncode == 1
    assert "'bad-attr': '.handle'" in beyond.stdout, beyond.stdout
