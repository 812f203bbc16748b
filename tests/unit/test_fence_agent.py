# SPDX-License-Identifier: GPL-2.0-only
"""The fence-agent protocol against scripts that behave well, badly, and not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bridge.fence_agent import FenceAgent, FenceAgentError, parse_metadata
from vcs.config.model import FencingConfig, NodeConfig

NODE = NodeConfig(2, "two", ("127.0.0.2",), fence={"plug": "7"})
METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_test" shortdesc="test">
<parameters><parameter name="action"/><parameter name="plug"/></parameters>
<actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/><action name="metadata"/></actions>
</resource-agent>"""


def agent(tmp_path: Path, body: str, metadata: str = METADATA, timeout_ms: int = 5000, **options: str) -> FenceAgent:
    """An agent as a shell script: ``body`` runs with $action set and the options in the file ``input``."""
    (tmp_path / "metadata.xml").write_text(metadata)
    script = tmp_path / "fence_test"
    script.write_text(
        f"""#!/bin/sh
cd {tmp_path}
input=$(cat)
action=$(echo "$input" | sed -n 's/^action=//p' | tail -n 1)
[ "$action" = metadata ] && exec cat metadata.xml
echo "$input" > input
echo "$action" >> actions
{body}
"""
    )
    script.chmod(0o755)
    return FenceAgent(FencingConfig(str(script), options, timeout_ms=timeout_ms))


def test_off_is_confirmed_by_status_and_gets_its_options(tmp_path: Path) -> None:
    a = agent(tmp_path, '[ "$action" = off ] && exit 0; exit 2', ip="192.0.2.1")
    a.check()
    outcome = a.fence(NODE)
    assert outcome.ok and "status is off" in outcome.detail
    assert (tmp_path / "actions").read_text().split() == ["off", "status"]
    assert sorted((tmp_path / "input").read_text().split()) == ["action=status", "ip=192.0.2.1", "nodename=two", "plug=7"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("echo 'no route to device' >&2; exit 1", "no route to device"),
        ("exit 0", "still on"),
        ('[ "$action" = off ] && exit 0; exit 1', "action=status ended with exit code 1"),
        ("kill -9 $$", "signal 9"),
    ],
)
def test_anything_but_off_is_a_failure(tmp_path: Path, body: str, word: str) -> None:
    a = agent(tmp_path, body)
    a.check()
    outcome = a.fence(NODE)
    assert not outcome.ok and word in outcome.detail


def test_a_timeout_is_a_failure_and_kills_the_whole_group(tmp_path: Path) -> None:
    a = agent(tmp_path, "sleep 300 & echo $! > helper; sleep 300", timeout_ms=400)
    a.check()
    began = time.monotonic()
    outcome = a.fence(NODE)
    assert not outcome.ok and "did not end in time" in outcome.detail and time.monotonic() - began < 5
    helper = int((tmp_path / "helper").read_text())
    for _ in range(100):  # killed, and reaped by init or by nobody: a zombie counts as gone
        try:
            state = Path(f"/proc/{helper}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("the helper of a killed agent lives on")


def test_reboot_is_believed_and_a_missing_plug_is_the_nodes_name(tmp_path: Path) -> None:
    a = agent(tmp_path, "exit 0", action="reboot")
    a.check()
    assert a.fence(NodeConfig(3, "three", ("127.0.0.3",))).ok
    assert (tmp_path / "actions").read_text().split() == ["reboot"]
    assert "plug=three" in (tmp_path / "input").read_text()


def test_launch_does_not_wait(tmp_path: Path) -> None:
    a = agent(tmp_path, "sleep 0.5; exit 2", timeout_ms=3000)
    a.check()
    began = time.monotonic()
    future = a.launch(NODE)
    assert time.monotonic() - began < 0.3
    assert not future.result(5).ok


@pytest.mark.parametrize(
    ("name", "word"),
    [("fence_nothing_like_this", "not installed"), ("/no/such/fence_agent", "does not exist")],
)
def test_a_missing_agent_is_named_with_the_remedy(name: str, word: str) -> None:
    with pytest.raises(FenceAgentError, match=word) as caught:
        FenceAgent(FencingConfig(name)).check()
    assert name in str(caught.value) and caught.value.remedy and caught.value.exit_code == 78


def test_an_unusable_agent_is_found_at_the_start(tmp_path: Path) -> None:
    a = agent(tmp_path, "exit 0", metadata="Usage: fence_test [options]")
    with pytest.raises(FenceAgentError, match="not XML"):
        a.check()
    a = agent(tmp_path, "exit 0", metadata=METADATA.replace('<action name="off"/>', ""))
    with pytest.raises(FenceAgentError, match="cannot 'off'"):
        a.check()
    with pytest.raises(FenceAgentError, match="use off"):
        agent(tmp_path, "exit 0", action="on").check()
    os.chmod(tmp_path / "fence_test", 0o644)
    with pytest.raises(FenceAgentError, match="not executable"):
        FenceAgent(FencingConfig(str(tmp_path / "fence_test"))).check()


def test_options_that_the_protocol_cannot_carry_are_refused(tmp_path: Path) -> None:
    a = agent(tmp_path, "exit 2")
    a.check()
    outcome = a.fence(NodeConfig(2, "two", ("127.0.0.2",), fence={"plug": "7\naction=on"}))
    assert not outcome.ok and "plug" in outcome.detail and not (tmp_path / "actions").exists()


def test_other_xml_is_no_metadata() -> None:
    with pytest.raises(ValueError, match="resource-agent"):
        parse_metadata("<html/>")
