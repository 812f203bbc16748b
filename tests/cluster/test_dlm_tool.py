# SPDX-License-Identifier: GPL-2.0-only
"""Debian's dlm_tool, unmodified, on three machines: a lockspace that is normal, changes, waits for a fence, waits for quorum."""

from __future__ import annotations

import re

import pytest
from harness.pytest_plugin import Factory
from vcslab.cluster import VcsCluster
from vcslab.story import wait_group

from tests.cluster.calm import site
from tests.cluster.conftest import NODES
from tests.cluster.test_dlm import OPEN_INPUT

pytestmark = pytest.mark.vm

SPACE = "tool"
ID = "0x8fb8020e"
"crc32 of dlm:ls:tool and a NUL."


def tool(vcs: VcsCluster, node: int, command: str) -> str:
    return vcs[node].run(f"dlm_tool {command}", timeout=60, check=True).out


def says(vcs: VcsCluster, node: int, command: str, pattern: str, timeout: float = 60) -> str:
    """Wait until dlm_tool says so; its whole answer."""
    last = ""

    def said() -> bool:
        nonlocal last
        last = tool(vcs, node, command)
        return re.search(pattern, last, re.M) is not None

    try:
        vcs.wait(said, timeout, f"`dlm_tool {command}` of node {node} to say {pattern!r}")
    except Exception as error:
        raise AssertionError(f"{error}; it says:\n{last}") from error
    return last


def test_every_command_in_every_situation(module_cluster: Factory) -> None:
    vcs = site(module_cluster)
    for n in NODES:
        assert tool(vcs, n, "ls") == "", "no lockspace yet"
        assert tool(vcs, n, f"join {SPACE}").endswith("done\n")
    wait_group(vcs, NODES, SPACE)
    normal(vcs)
    changing(vcs)
    fencing(vcs)
    quorum(vcs)


def normal(vcs: VcsCluster) -> None:
    for n in NODES:
        assert re.fullmatch(
            f"dlm lockspaces\nname          {SPACE}\nid            {ID}\nflags         0x00000000 \n"
            rf"change        member 3 joined \d remove 0 failed 0 seq \d+,\d+\nmembers       1 2 3 \n\n",
            tool(vcs, n, "ls"),
        ), tool(vcs, n, "ls")
    assert re.search(r"^nodeid 3 member 1 failed 0 start 1 seq_add 3 seq_rem 0 check none$", tool(vcs, 1, "ls -n"), re.M)
    status = tool(vcs, 2, "status")
    assert re.match(r"cluster nodeid 2 quorate 1 ring seq (\d+) \1\n", status), status
    assert len(re.findall(r"^node [123] M add \d+ rem 0 fail 0 fence 0 at 0 0$", status, re.M)) == 3, status
    assert "    member_count=3\n" in tool(vcs, 2, "status -v")
    assert f'write "1" to "/sys/kernel/dlm/{SPACE}/control"' in tool(vcs, 1, "dump")
    assert "protocol=tcp\n" in tool(vcs, 1, "dump_config")
    assert tool(vcs, 1, f"plocks {SPACE}") == ""
    held = vcs[1].spawn(f"{OPEN_INPUT} exec python3 -S -m tests.cluster.dlm_lock {SPACE} hold res", log="held")
    vcs.wait(lambda: held.log.exists() and "granted" in held.log.read_text(), 20, "a lock on node 1")
    assert re.search(r'^id [0-9a-f]{8} gr EX rq IV pid \d+ master 0 "res"$', tool(vcs, 1, f"lockdump {SPACE}"), re.M)
    assert "Granted" in tool(vcs, 1, f"lockdebug {SPACE}")
    vcs[1].run(f"kill {held.pid}", check=True)
    vcs.wait(lambda: held.rc is not None, 20, "the lock to be given back")
    log_debug = "/sys/kernel/config/dlm/cluster/log_debug"
    assert tool(vcs, 1, "set_config log_debug=1") == "set_config done\n"
    vcs.wait(lambda: vcs[1].read(log_debug).strip() == "1", 10, "log_debug")
    tool(vcs, 1, "set_config restore_all")
    vcs.wait(lambda: vcs[1].read(log_debug).strip() == "0", 10, "log_debug restored")
    assert tool(vcs, 1, "reload_config") == "reload_config done\n"


def changing(vcs: VcsCluster) -> None:
    """Node 3 leaves and joins while node 2's dlm_glue does not answer: nobody starts, and node 1 says whom it waits for."""
    assert tool(vcs, 3, f"leave {SPACE}").endswith("done\n")
    says(vcs, 1, "ls", r"^change        member 2 joined 0 remove 1 failed 0")
    wait_group(vcs, (1, 2), SPACE)
    glue = vcs.daemon_pid(2, "dlm_glue")
    vcs[2].run(f"kill -STOP {glue}", check=True)
    joining = vcs[3].spawn(f"dlm_tool join {SPACE}", log="joining")
    told = says(vcs, 1, "ls -n", r"^new status    wait messages 1$")
    assert "kern_stop" in told and "new change    member 3 joined 1 remove 0 failed 0" in told and "new members   1 2 3 \n" in told
    assert re.search(r"^nodeid 2 member 1 failed 0 start 0 ", told, re.M) and re.search(r"^nodeid 3 member 1 failed 0 start 1 ", told, re.M)
    assert re.search(r"^flags         0x00000005 kern_stop,join$", tool(vcs, 3, "ls"), re.M)
    vcs[2].run(f"kill -CONT {glue}", check=True)
    vcs.wait(lambda: joining.rc is not None, 30, "node 3 to join")
    assert joining.rc == 0, joining.log.read_text()
    wait_group(vcs, NODES, SPACE)
    assert "flags         0x00000000 \n" in tool(vcs, 3, "ls")


def fencing(vcs: VcsCluster) -> None:
    vcs.lab.power.set_broken(3)
    vcs[3].power_off()
    told = says(vcs, 1, "ls -n", r"^new status    wait fencing$")
    assert re.search(r"^flags         0x00000004 kern_stop$", told, re.M)
    assert re.search(r"^new change    member 2 joined 0 remove 1 failed 1 seq \d+,\d+$", told, re.M) and "new members   1 2 \n" in told
    assert re.search(r"^nodeid 3 member 0 failed 3 start 0 seq_add \d+ seq_rem \d+ check fence [1-9]\d*$", told, re.M)
    status = tool(vcs, 1, "status")
    assert re.search(r"^fence 3 nodedown pid 0 actor \d fail [1-9]\d* fence 0 now \d+", status, re.M), status
    assert re.search(r"^node 3 X add \d+ rem [1-9]\d* fail [1-9]\d* fence 0 at 0 0$", status, re.M), status
    tool(vcs, 1, "fence_ack 3")
    says(vcs, 1, "ls", r"^change        member 2 joined 0 remove 1 failed 1 .*\nmembers       1 2 \n$")
    says(vcs, 2, "ls", r"^members       1 2 \n$")
    assert re.search(r"^node 3 X add \d+ rem [1-9]\d* fail [1-9]\d* fence [1-9]\d* at ", tool(vcs, 1, "status"), re.M)
    assert "fence_ack 3\n" in tool(vcs, 1, "dump")


def quorum(vcs: VcsCluster) -> None:
    vcs.lab.power.set_broken(2)
    vcs[2].power_off()
    told = says(vcs, 1, "ls", r"^new status    wait quorum$")
    assert "kern_stop" in told and "new members   1 \n" in told
    assert tool(vcs, 1, "status").startswith("cluster nodeid 1 quorate 0 ")
