# SPDX-License-Identifier: GPL-2.0-only
"""dlm_glue with the real DLM and the real switch, one machine per kernel: runs guest_glue.py there."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Cluster

from tests.kernel.in_guest import PYTEST
from tests.kernel.versions import SERIES, SLOW

pytestmark = pytest.mark.vm

COMMAND = (
    "modprobe dlm && modprobe vcs && mkdir -p /run/vcs && cd /opt/vcs/src && "
    f"{PYTEST} -rP --timeout={120 * SLOW:.0f} tests/kernel/guest_glue.py"
)


@pytest.mark.parametrize("series", SERIES)
def test_dlm_glue_on_one_node(series: str, tmp_path: Path) -> None:
    with Cluster(nodes=1, kernel=series, artifacts=tmp_path) as cluster:
        result = cluster[1].run(COMMAND, timeout=400 * SLOW)
        print(result.out)
        assert result.rc == 0, result.out + result.err
