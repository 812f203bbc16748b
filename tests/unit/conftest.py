# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures that several files of unit tests ask for by name."""

from tests.unit.cli_run import backend, run

__all__ = ["backend", "run"]
