# SPDX-License-Identifier: GPL-2.0-only
"""Identity of a node, the lock of a daemon, a log that does not wait, and what an administrator is told of refused frames."""

from __future__ import annotations

import io
import logging
import socket
import threading
from pathlib import Path

import pytest

from bridge.backend import refused_frames
from membership.api import Processor
from membership.totem.aes import aes_gcm
from membership.totem.seal import FrameError, Sealer
from vcs import log as vcs_log
from vcs.component import AlreadyRunning, LockFile, own_node
from vcs.config.model import ClusterConfig, NodeConfig
from vcs.errors import ConfigError


def cluster(*nodes: tuple[int, str, str]) -> ClusterConfig:
    return ClusterConfig("c", tuple(NodeConfig(i, name, (address,)) for i, name, address in nodes))


ELSEWHERE = "192.0.2.7"


def test_a_node_is_found_by_wish_by_host_name_and_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    config = cluster((1, "one", ELSEWHERE), (2, "two", "127.0.0.1"), (30, "three", "2001:db8::7"))
    assert own_node(config, "three").id == 30 and own_node(config, "30").id == 30
    monkeypatch.setattr(socket, "gethostname", lambda: "one.example.net")
    assert own_node(config).id == 1
    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    assert own_node(config).id == 2


def test_what_cannot_be_told_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    with pytest.raises(ConfigError, match="one and two are local"):
        own_node(cluster((1, "one", "127.0.0.1"), (2, "two", "127.0.0.2")))
    with pytest.raises(ConfigError, match=r"no address is local.*--node"):
        own_node(cluster((1, "one", ELSEWHERE)))
    with pytest.raises(ConfigError, match=r"--node nine: .*one \(1\)"):
        own_node(cluster((1, "one", "127.0.0.1")), "nine")


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    first = LockFile(tmp_path / "lock")
    with pytest.raises(AlreadyRunning, match=r"process [0-9]+ holds"):
        LockFile(tmp_path / "lock")
    first.close()
    LockFile(tmp_path / "lock").close()


class Stuck(io.StringIO):
    """A standard error that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(10)
        return super().write(text)


def test_a_stuck_reader_costs_records_and_no_time() -> None:
    out = Stuck()
    running = vcs_log.start(logging.INFO, out)
    logger = logging.getLogger("stuck")
    for i in range(vcs_log.QUEUE_MAX + 100):
        logger.info("line %d", i)
    dropped = running.handler.dropped
    assert 90 <= dropped <= 100
    out.go.set()
    running.drain()
    logger.error("after")
    running.stop()
    text = out.getvalue()
    assert text.startswith("<6>stuck: line 0\n")
    assert text.endswith(f"<3>stuck: after [{dropped} log records before this were dropped]\n")


def test_each_line_of_a_traceback_has_the_priority() -> None:
    out = io.StringIO()
    running = vcs_log.start(logging.INFO, out)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("t").exception("it broke")
    running.stop()
    lines = out.getvalue().splitlines()
    assert len(lines) > 3 and all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("last", [b"\x01", b"\x02", b"\x03"])
def test_frames_under_another_key_make_a_note(last: bytes) -> None:
    """Whatever reason the engine counts them under: an administrator is told which file to look at."""
    ours = Sealer("c", Processor(1, 1, 1), aes_gcm(b"k" * 32))
    theirs = Sealer("c", Processor(2, 1, 1), aes_gcm(b"k" * 31 + last))
    with pytest.raises(FrameError) as refused:
        ours.open(theirs.seal(b"hello"))
    notes = refused_frames({"counters": {f"dropped_{refused.value.reason}": 3}})
    assert len(notes) == 1 and notes[0].startswith("3 frames") and "cluster.key" in notes[0]
