# SPDX-License-Identifier: GPL-2.0-only
"""The kernels that the kernel suite runs on: all that we build for, or what VCS_KERNEL names (`make vm-debug` does)."""

from __future__ import annotations

import os
from typing import Final

from harness import Machine
from harness.kernels import OURS

SERIES: Final = tuple(os.environ.get("VCS_KERNEL", "6.1,6.12").split(","))
SLOW: Final = 5.0 if set(SERIES) & set(OURS) else 1.0
"Limits of time are longer by this factor where everything is checked."
KMEMLEAK = "/sys/kernel/debug/kmemleak"
SCAN = f"echo scan > {KMEMLEAK}; sleep 5; echo scan > {KMEMLEAK}; cat {KMEMLEAK}"
"Two scans: what the first calls suspected may have been in a register. kmemleak says nothing of what is younger than five seconds."
OUR_MODULES = "vcs_test_consumer vcs_test_provider vcs_heartbeat vcs"
UNLOAD = f"for module in {OUR_MODULES}; do ! grep -q \"^$module \" /proc/modules || rmmod $module || exit 1; done"


def check_leaks(machine: Machine) -> None:
    """Fails when memory is lost once our modules are unloaded, which this does; where the kernel has somebody to ask."""
    machine.run(UNLOAD, 60, check=True)
    lost = machine.run(f"[ ! -e {KMEMLEAK} ] || {{ {SCAN}; }}", 120, check=True).out
    assert not lost, lost
