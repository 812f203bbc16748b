# SPDX-License-Identifier: GPL-2.0-only
"""The lab: clusters of virtual machines on real kernels, driven from the host. Imports nothing of the product."""

from harness.cluster import Cluster
from harness.errors import ChannelClosed, CommandFailed, KernelSplat, LabError, LabTimeout
from harness.machine import ClockOffset, Machine
from harness.spec import Result, Spawned

__all__ = [
    "ChannelClosed", "ClockOffset", "Cluster", "CommandFailed", "KernelSplat", "LabError", "LabTimeout", "Machine",
    "Result", "Spawned",
]
