# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures shared by all tests: the lab's. And one rule: skipped is not passed."""

import pytest
from hypothesis import settings

# How long one example takes says something about the machine's other work, not about what is tested; each test has a time limit anyway.
settings.register_profile("vcs", deadline=None)
settings.load_profile("vcs")

pytest_plugins = ["harness.pytest_plugin"]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run in which something was skipped has failed: what cannot run here must be said, not passed over."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or session.exitstatus != pytest.ExitCode.OK:
        return
    if reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
