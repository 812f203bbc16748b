# SPDX-License-Identifier: GPL-2.0-only
"""`vcs config`, completion, usage errors, and the table of verbs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vcs
from tests.unit.cli_run import Run
from vcs import sysfs
from vcs.cli.main import COMMANDS
from vcs.cli.render import clean, duration, ranges

ROOT = Path(__file__).parents[2]
CONFIG = '[cluster]\nname = "alpha"\nkey_file = "k"\n[[node]]\nid = 1\nname = "a"\naddress = "192.0.2.1"\n'


def test_config_check_and_keygen(run: Run, tmp_path: Path) -> None:
    path, key = tmp_path / "cluster.toml", tmp_path / "k"
    path.write_text(CONFIG)
    got = run("config", "check", str(path))
    assert (got.code, got.out) == (78, "")
    assert got.err.startswith(f"{path}:3: cluster.key_file: {key} does not exist; make it once with `vcs keygen {key}`")
    assert run("config", "check", str(path), "--json").json["check"]["problems"] == got.err.splitlines()
    assert run("config", "check", str(path), "--no-key").code == 0
    assert run("keygen", str(key)).code == 0
    got = run("keygen", str(key))
    assert got.code == 1 and "exists and is left as it is" in got.err
    assert run("config", "check", str(path)).out == f"{path}: cluster alpha, 1 node: no error\n"
    assert run("keygen", str(tmp_path / "k2"), "--json").json == {"version": 1, "keygen": {"file": str(tmp_path / "k2")}}


def test_config_show_has_no_secrets(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(
        CONFIG
        + 'fence = { plug = 1, passwd = "hush" }\n[fencing]\nagent = "f"\noptions = { Password_Script = "hush", ip = "x" }\n'
    )
    out = run("config", "show", str(path)).out
    assert "hush" not in out
    for line in ("cluster.name = alpha", "node.1.fence.plug = 1", "node.1.fence.passwd = (hidden)", "quorum.wait_for_all = true",
                 "fencing.options.ip = x", "totem.token_ms = 600", "node.1.addresses = 192.0.2.1"):  # fmt: skip
        assert line in out.splitlines()
    document = run("config", "show", str(path), "--json")
    assert "hush" not in document.out
    assert document.json["config"]["node"][0]["addresses"] == ["192.0.2.1"]
    assert document.json["config"]["cluster"] == {"name": "alpha", "key_file": "k", "engine": "totem"}


def test_config_show_of_lockspaces(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    node = '[[node]]\nid = 1\nname = "n1"\naddress = "192.0.2.1"\n'
    path.write_text('[cluster]\nname = "a"\n' + node + '[[dlm.lockspace]]\nname = "x"\nnodir = true\nweights = { n1 = 2 }\n')
    shown = run("config", "show", str(path), "--key", "dlm.lockspace").out
    assert shown == "dlm.lockspace.x.name = x\ndlm.lockspace.x.nodir = true\ndlm.lockspace.x.weights.1 = 2\n"
    assert run("config", "show", str(path), "--key", "dlm.lockspace.nodir", "--json").json["config"] == {"dlm.lockspace.x.nodir": True}


def test_config_show_of_some_keys(run: Run) -> None:
    example = str(ROOT / "etc" / "cluster.toml.example")
    got = run("config", "show", example, "--key", "metrics", "--key", "node.name")
    assert got.out == "node.1.name = node1\nnode.2.name = node2\nnode.3.name = node3\nmetrics.listen = \n"
    assert run("config", "show", example, "--key", "dlm.port", "--json").json["config"] == {"dlm.port": 21064}
    got = run("config", "show", example, "--key", "quorum.wait_for_al")
    assert got.code == 2 and "did you mean 'quorum.wait_for_all'?" in got.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vcs st", ["status"]),
        ("vcs fence ", ["ack", "check", "history", "list", "status"]),
        ("vcs config show --key me", ["metrics", "metrics.listen"]),
    ],
)
def test_completion(words: str, expected: list[str]) -> None:
    environment = {**os.environ, "_VCS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    got = subprocess.run([sys.executable, "-m", "vcs.cli.main"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert [line.partition(",")[2] for line in got.stdout.splitlines()] == expected


# --- the command itself -----------------------------------------------------------------------------------------------


def test_usage_errors(run: Run) -> None:
    assert run("statsu").code == 2
    assert run("status", "--bogus").code == 2
    assert run("events", "--last", "x").code == 2


def test_every_verb_is_what_the_table_says(run: Run) -> None:
    text = run("--help").out
    for name, (module, line) in COMMANDS.items():
        assert module == f"vcs.cli.{name}"
        assert f"  {name} " in text and line in text
        assert run(name, "--help").code == 0
    assert run("--version").out == f"vcs {vcs.__version__}\n"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == vcs.__version__


def test_a_command_imports_little() -> None:
    """What makes a command slow to start must not come in by accident."""
    code = "import sys, vcs.cli.main, vcs.cli.status; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"pyroute2", "asyncvarlink", "cryptography", "asyncio", "yaml", "bridge", "membership"} & set(found)


def test_small_words() -> None:
    assert ranges([3, 1, 2, 7, 9, 10]) == "1-3,7,9-10"
    assert sysfs.parse_ranges("1-3,7,9-10") == [1, 2, 3, 7, 9, 10]
    assert len(sysfs.parse_ranges("1-4294967295")) == 100_001  # bounded, whatever the file says
    assert [duration(ms) for ms in (5, 9_999, 10_000, 120_000, 7_260_000, 200_000_000, None)] == [
        "5 ms", "9999 ms", "10 s", "2 min", "2 h 1 min", "2 d 7 h", ""]  # fmt: skip
    assert clean("a\x1b[31mb\u202ec\n") == "a?[31mb?c?"
    assert importlib.import_module("vcs.cli.main").cli.name == "cli"
    assert os.path.exists(ROOT / "docs" / "man" / "vcs.1.md")
