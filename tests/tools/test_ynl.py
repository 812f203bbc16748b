# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own netlink client against our module, in one machine: runs guest_ynl.py there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from harness import Cluster, source

from tests.kernel.in_guest import PYTEST

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
TREE = "/run/ynl"
COMMAND = (
    f"modprobe vcs && cd /opt/vcs/src && YNL_TREE={TREE} "
    f"{PYTEST} -rP --timeout=200 tests/tools/guest_ynl.py"
)


def test_cli_py_and_vcs_agree(tmp_path: Path) -> None:
    """Debian's client with PyYAML, our YAML, nothing else."""
    tree = source.get()
    files = {name: tree / name for name in source.YNL}
    files |= {f"python/yaml/{path.name}": path for path in Path(yaml.__file__).parent.glob("*.py")}
    files["Documentation/netlink/specs/vcs.yaml"] = ROOT / "kmod/spec/vcs.yaml"
    with Cluster(nodes=1, artifacts=tmp_path) as cluster:
        for name, path in files.items():
            cluster[1].write(f"{TREE}/{name}", path.read_bytes())
        result = cluster[1].run(COMMAND, timeout=400)
        print(result.out)
        assert result.rc == 0, result.out + result.err
