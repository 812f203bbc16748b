# SPDX-License-Identifier: GPL-2.0-only
"""The coordinator: one deterministic state machine that every node runs over the same ordered messages. Pure."""

from bridge.coordinator.core import Coordinator, Mode

__all__ = ["Coordinator", "Mode"]
