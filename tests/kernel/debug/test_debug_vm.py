# SPDX-License-Identifier: GPL-2.0-only
"""What only a kernel of our own can be asked (`make vm-debug`): KUnit's suites, by KUnit itself."""

from __future__ import annotations

import pytest
from harness.kernels import DEBUG
from harness.pytest_plugin import Factory

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

UNITS = "modprobe vcs && cd /opt/vcs/src && python3 -m pytest -q -p no:cacheprovider --timeout=240 tests/kernel/guest_module.py -k own_unit"


def test_the_unit_tests(cluster: Factory) -> None:
    node = cluster(nodes=1, kernel=DEBUG, cpus=2)[1]
    result = node.run(UNITS, 300)
    assert "1 passed" in result.out, result.out + result.err
