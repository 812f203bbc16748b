# SPDX-License-Identifier: GPL-2.0-only
"""Debian's dlm_tool 4.2.0, unmodified, against dlm_glue's sockets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import peer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Abstract sockets are one per network namespace, so the story has one for itself."""
    folder = tmp_path_factory.mktemp("dlm")
    command = ["unshare", "--net", sys.executable, "-m", "tests.process.dlm_seat", str(folder)]
    environment = {**os.environ, **peer.dlm_tool()}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def out(said: dict[str, Any], situation: str, command: str) -> str:
    answer = said[situation][command]
    assert answer["rc"] == 0, (situation, command, answer)
    text: str = answer["out"]
    return text


NORMAL = """dlm lockspaces
name          gfs
id            0x3df8322a
flags         0x00000000\x20
change        member 2 joined 2 remove 0 failed 0 seq 1,1
members       1 2\x20

"""


def test_nothing_is_there_yet(said: dict[str, Any]) -> None:
    assert out(said, "idle", "ls") == ""
    assert re.fullmatch(
        r"cluster nodeid 1 quorate 1 ring seq 9 1\ndaemon now \d+ fence_pid 0 \n"
        r"node 1 M add \d+ rem 0 fail 0 fence 0 at 0 0\nnode 2 M add \d+ rem 0 fail 0 fence 0 at 0 0\n",
        out(said, "idle", "status"),
    )


def test_a_lockspace_that_is_normal(said: dict[str, Any]) -> None:
    assert out(said, "normal", "ls") == NORMAL
    assert out(said, "normal", "ls gfs") == NORMAL
    assert out(said, "normal", "ls -n") == NORMAL[:-1] + (
        "all nodes\n"
        "nodeid 1 member 1 failed 0 start 1 seq_add 1 seq_rem 0 check none\n"
        "nodeid 2 member 1 failed 0 start 1 seq_add 1 seq_rem 0 check none\n\n"
    )
    assert said["normal"]["ls other"] == {"rc": 1, "out": "", "err": ""}


def test_status_in_full(said: dict[str, Any]) -> None:
    lines = out(said, "normal", "status -v").splitlines()
    assert lines[:3] == ["our_nodeid 1", "    member_count=2", "    joined_count=2"]
    assert "nodeid 2" in lines and "    left_reason=unknown" in lines


def test_the_log(said: dict[str, Any]) -> None:
    lines = out(said, "normal", "dump").splitlines()
    assert '13 mkdir "/cfg/dlm/cluster/spaces/gfs/nodes/2"' in lines
    assert '13 write "1" to "/dlm/gfs/control"' in lines
    assert said["normal"]["log_plock"]["out"] == "\n" == said["normal"]["run_list"]["out"]


def test_posix_locks(said: dict[str, Any]) -> None:
    assert out(said, "normal", "plocks gfs") == "4658 WR 0-9223372036854775807 nodeid 1 pid 263 owner ffff888004206580 rown 0\n"
    assert out(said, "normal", "plocks other") == ""


def test_recovering(said: dict[str, Any]) -> None:
    text = out(said, "recovering", "ls")
    assert "flags         0x00000004 kern_stop\n" in text
    assert "new change    member 2 joined 0 remove 0 failed 0 seq 2,2\nnew status    wait messages 1\nnew members   1 2 \n" in text
    assert "seq 2,2\nmembers       1 2 \n\n" in out(said, "started", "ls")


def test_waiting_for_fencing(said: dict[str, Any]) -> None:
    text = out(said, "fencing", "ls -n")
    assert "new change    member 1 joined 0 remove 1 failed 1 seq 3,3\nnew status    wait fencing\nnew members   1 \n" in text
    assert re.search(r"^nodeid 2 member 0 failed 3 start 0 seq_add 1 seq_rem 3 check fence \d+$", text, re.M)
    status = out(said, "fencing", "status")
    assert re.search(r"^fence 2 nodedown pid 0 actor 1 fail 1\d{9} fence 0 now 1\d{9}$", status, re.M)
    assert re.search(r"^node 2 X add \d+ rem \d+ fail \d+ fence 0 at 0 0$", status, re.M)
    assert said["acked"] == {"nodes": [2]}, "once, by root, for a node that is waited for"


def test_waiting_for_quorum(said: dict[str, Any]) -> None:
    assert "new status    wait quorum\n" in out(said, "quorum", "ls")
    assert out(said, "quorum", "status").startswith("cluster nodeid 1 quorate 0 ")


def test_options(said: dict[str, Any]) -> None:
    assert "port=4711 (dlm.conf)\n" in out(said, "normal", "dump_config") and "log_debug=0\n" in out(said, "normal", "dump_config")
    assert out(said, "options", "set_config log_debug=1") == "set_config done\n"
    assert "log_debug=1 (set_config)\n" in out(said, "options", "dump_config")
    assert said["options"]["reload_config"]["rc"] == 0
    assert said["options"]["kernel"]["log_debug"] == "0", "restored"
    log = out(said, "afterwards", "dump")
    assert 'write "1" to "/cfg/dlm/cluster/log_debug"' in log and 'write "0" to "/cfg/dlm/cluster/log_debug"' in log
    # enable_helper=0: dlm_tool prints an empty uuid then.
    assert said["options"]["run_start true"]["out"] == "run_uuid: \n"


def test_anybody_may_ask_and_root_alone_may_act(said: dict[str, Any]) -> None:
    assert b"gfs" in bytes.fromhex(said["nobody"]["ls"])
    assert said["nobody"]["fence_ack"] == ""
    assert said["counters"]["refused"] == 1
    assert "fence_ack 3 refused: nobody waits for it" in out(said, "afterwards", "dump")
    assert "fence_ack: 'two' is no nodeid" in out(said, "afterwards", "dump")


def test_nonsense_closes_its_connection_and_nothing_else(said: dict[str, Any]) -> None:
    assert set(said["malformed"]["answers"]) == {""}
    assert said["counters"]["malformed"] == 10, "an empty connection is no request at all"
    assert "name          gfs" in out(said, "afterwards", "ls")


def test_without_vcsd_the_switch_still_answers(said: dict[str, Any]) -> None:
    assert "new status    wait quorum\n" in out(said, "without vcsd", "ls")
    assert out(said, "without vcsd", "status").startswith("cluster nodeid 1 quorate 0 ")


def test_without_us_it_is_as_without_dlm_controld(said: dict[str, Any]) -> None:
    assert said["gone"]["ls"] == {"rc": 1, "out": "", "err": ""}
    assert said["gone"]["status"]["out"] == "cannot connect to dlm_controld\n"
