# SPDX-License-Identifier: GPL-2.0-only
"""The lab: clusters of virtual machines on real kernels, driven from the host. Imports nothing of the product.

Names are loaded when asked for, so that `python -m harness.kernels` in a Makefile is quick.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.errors import ChannelClosed, CommandFailed, KernelSplat, LabError, LabTimeout
    from harness.machine import ClockOffset, Machine
    from harness.spec import Result, Spawned

_HOME = {
    "Cluster": "cluster",
    "ChannelClosed": "errors",
    "CommandFailed": "errors",
    "KernelSplat": "errors",
    "LabError": "errors",
    "LabTimeout": "errors",
    "ClockOffset": "machine",
    "Machine": "machine",
    "Result": "spec",
    "Spawned": "spec",
}

__all__ = [
    "ChannelClosed", "ClockOffset", "Cluster", "CommandFailed", "KernelSplat", "LabError", "LabTimeout", "Machine",
    "Result", "Spawned",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.{_HOME[name]}"), name)
