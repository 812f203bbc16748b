# SPDX-License-Identifier: GPL-2.0-only
"""`vcs wait`: what a machine's start is ordered after."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vcs.cli import wait as wait_module
from vcs.cli.main import main


class Node:
    """A kernel's two trees."""

    def __init__(self, folder: Path) -> None:
        self.sysfs, self.dlm = folder / "vcs", folder / "dlm"

    def put(self, root: Path, name: str, text: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def cluster(self, *, state: str = "attached", quorate: str = "1") -> None:
        for name, text in (("cluster_name", "alpha"), ("provider/state", state), ("view/quorate", quorate), ("view/members", "1-2")):
            self.put(self.sysfs, f"alpha/{name}", text)

    def address(self, local: str = "1") -> None:
        self.put(self.dlm, "comms/1/local", local)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    found = Node(tmp_path)
    monkeypatch.setenv("VCS_SYSFS", str(found.sysfs))
    monkeypatch.setenv("VCS_DLM", str(found.dlm))
    monkeypatch.setattr(wait_module, "POLL_S", 0.001)
    return found


def wait(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["wait", *arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    assert wait("--timeout", "0.01") == 75
    return capsys.readouterr().err


def test_what_is_missing_is_named(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not loaded" in refused(capsys)
    node.sysfs.mkdir()
    assert "holds no cluster" in refused(capsys)
    node.cluster(state="orphan")
    assert "the provider is orphan" in refused(capsys)
    node.cluster(quorate="0")
    assert "not quorate (members: 1, 2)" in refused(capsys)
    node.cluster()
    assert "dlm_glue has not" in refused(capsys)
    node.address("0")
    assert "dlm_glue has not" in refused(capsys)


def test_ready(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.cluster()
    node.address()
    assert wait() == 0 and capsys.readouterr().out == ""
    assert wait("--json") == 0 and '"ready": true' in capsys.readouterr().out


def test_it_waits(node: Node) -> None:
    """Without a limit, until the last thing is there."""
    node.cluster()
    later = threading.Timer(0.05, node.address)
    later.start()
    assert wait() == 0
    later.join()
    assert (node.dlm / "comms/1/local").exists()
