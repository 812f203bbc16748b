# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures shared by all tests: the lab's."""

pytest_plugins = ["harness.pytest_plugin"]
