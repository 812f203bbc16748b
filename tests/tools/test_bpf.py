# SPDX-License-Identifier: GPL-2.0-only
"""The BPF tools in one machine with bcc and its kernel's headers: runs guest_bpf.py there."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Cluster

from tests.kernel.in_guest import PYTEST
from tests.tools.own_modules import OWN_MODULES

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]
"The image of the tools may have to be built first."

COMMAND = (
    "modprobe dlm && modprobe vcs && mkdir -p /run/vcs && cd /opt/vcs/src && "
    f"{PYTEST} -rP --timeout=300 tests/tools/guest_bpf.py"
)
MEMORY_MIB = 2048
"Three compilers at once."


def test_the_tools_are_right_about_a_known_workload(tmp_path: Path) -> None:
    with Cluster(nodes=1, kernel="6.1", artifacts=tmp_path, image_kind="tools", memory_mib=MEMORY_MIB, cpus=2) as cluster:
        cluster[1].run(OWN_MODULES, check=True)
        result = cluster[1].run(COMMAND, timeout=500)
        print(result.out)
        assert result.rc == 0, result.out + result.err
