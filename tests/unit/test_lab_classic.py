# SPDX-License-Identifier: GPL-2.0-only
"""What the lab writes for the stack of today and reads from its log."""

from __future__ import annotations

from vcslab.classic import FAILED, FORMED, Tuning


def test_configuration_differs_from_the_defaults_only_where_it_says() -> None:
    text = Tuning().corosync_conf("demo", (1, 2, 3))
    assert "token:" not in text and "ring0_addr: 10.77.0.3" in text and text.count("nodeid:") == 3
    assert "  token: 1000\n" in Tuning(1000).corosync_conf("demo", (1, 2, 3))
    lines = Tuning(post_join_delay_s=3).dlm_conf((1, 2)).splitlines()
    assert lines[:2] == ["post_join_delay=3", "plock_ownership=0"]
    assert lines[-2:] == ["connect lab node=1 plug=node1", "connect lab node=2 plug=node2"]


def test_lines_of_its_log() -> None:
    lost = "Nov 21 09:12:01.123 [271] node1 corosync notice  [TOTEM ] A processor failed, forming new configuration: token timed out"
    formed = "Nov 21 09:12:05.456 [271] node1 corosync notice  [TOTEM ] A new membership (1.14) was formed. Members left: 2"
    assert FAILED.match(lost) and not FORMED.match(lost)
    found = FORMED.match(formed)
    assert found and found["who"] == " Members left: 2" and found[2] == "456"
