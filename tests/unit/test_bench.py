# SPDX-License-Identifier: GPL-2.0-only
"""The parts of bench/ that reckon: ratios and bars, the lines of clients, corosync's log, the growth of a simulated ring."""

from __future__ import annotations

from bench import growth
from bench.contest import Tally
from bench.corosync import FORMED, Setting
from bench.load import Load
from bench.report import BARS, Metric


def test_a_ratio_is_ours_over_the_peers_and_bars_judge_it() -> None:
    fast = Metric.of("throughput_64", "msg/s", [300.0, 100.0, 200.0], [100.0, 90.0, 120.0], "peer")
    assert (fast.ours, fast.ours_min, fast.ours_max, fast.peer, fast.ratio, fast.runs) == (200, 100, 300, 100, 2, 3)
    assert BARS["throughput_64"].met(fast.ours, fast.ratio)
    assert not BARS["throughput_64"].met(200, 1.4)
    assert not BARS["throughput_64"].met(200, None), "without a peer nothing is proven"
    assert BARS["latency_idle_p99"].met(1, 1.0)
    assert not BARS["latency_idle_p99"].met(1, 1.1)
    assert BARS["leave_3"].met(10, None)
    assert not BARS["leave_3"].met(10.1, 0.01), "a better ratio does not excuse a missed time"


def test_a_client_counts_what_it_was_delivered() -> None:
    told: list[str] = []
    load = Load(2, told.append)
    load.take_all(2, [load.flood(64)] * 3, 100)
    load.take_all(2, [load.flood(64), load.ping(80, 150)], 200)
    load.take(3, Load(3, told.append).flood(1000), 250)
    assert (load.own_pings, load.last_own) == (1, 50)
    load.take(2, load.end(), 300)
    assert load.own_ends == 1
    tally = Tally.of(told.pop())
    assert tally == Tally(2, 5, 4 * 64 + 80, 100, 200, (50,))
    assert tally.rate == 4 / 100e-9
    load.take(2, load.end(), 400)
    assert told == ["end 2 0 0 0 0"], "an end mark begins anew"
    assert Tally.of("conf 1 2.3 4") is None


def test_corosync_s_log_says_when_a_ring_was_formed() -> None:
    got = FORMED.match("Nov  1 11:02:58.503 [4711] n1 corosync notice  [TOTEM ] A new membership (1.1c) was formed. Members left: 3")
    assert got is not None
    assert got.groups() == ("Nov  1 11:02:58", "503", "1", "1c")
    assert "token" not in Setting().text([], "log"), "the defaults are the package's"
    assert Setting("udpu", 1000).name == "corosync (udpu, token=1000)"


def test_growth_is_counted_in_the_simulator() -> None:
    row = growth.simulate(3)
    assert row.form.packets >= 6, "each node must be told of two others"
    assert row.leave.ms < row.silent.ms, "who says goodbye need not be missed"
    assert 1 < row.idle_packets < 200
    assert row.idle_bytes > row.idle_packets * growth.HEADERS
    assert growth.table([row]).count("\n") == 3
