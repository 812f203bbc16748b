# SPDX-License-Identifier: GPL-2.0-only
"""Why a configuration changed, in words, from evidence as the detector gives it; and how `vcs ring` shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from membership.api import Processor
from membership.totem.clique import Claim
from membership.totem.history import CHANGES_MAX, EVIDENCE_MAX, Evidence, History, Teller
from tests.unit.cli_run import Backend, Run
from vcs.cli.main import COMMANDS
from vcs.model import RingId

MS = 1_000_000
ONE, TWO, THREE, FOUR = (Processor(n, 100 + n, 200 + n) for n in (1, 2, 3, 4))
RING = RingId(12, 1)


def told(history: History, links: int = 1, local: int = 1) -> list[str]:
    """Sentences about the newest change; a time is told in ms."""
    return Teller(history.changes[-1], local, links, lambda n: f"node {n}", lambda t: f"T{t // MS}").sentences()


def changed(
    after: tuple[Processor, ...], *evidence: tuple[int, Evidence], before: tuple[Processor, ...] = (ONE, TWO, THREE),
    claims: set[Claim] | None = None, vouched: tuple[Processor, ...] = (), why: str = "",
) -> History:  # fmt: skip
    history = History()
    for at, e in evidence:
        history.noticed(e.nodeid, e.what, e.detail, e.since, e.asks, e.refused)
        history.stamp(at * MS)
    if why:
        history.gathering(why)
        history.stamp(500 * MS)
    history.installed(RING, after, before, claims or (), vouched)
    history.stamp(510 * MS)
    return history


def silent(nodeid: int, asks: int = 3, refused: int = 0) -> Evidence:
    return Evidence(0, nodeid, "suspect", "no answer for 250 ms to 3 asks", 120 * MS, asks, refused)


def test_a_silent_host() -> None:
    both = {(ONE, THREE), (TWO, THREE)}
    assert told(changed((ONE, TWO), (370, silent(3)), claims=both), links=2) == [
        "node 3 stopped answering at T120: 3 asks on both links unanswered for 250 ms; node 2 agrees. Its process may still run"
    ]
    assert told(changed((ONE, TWO), (370, silent(3, asks=1)), claims={(ONE, THREE)})) == [
        "node 3 stopped answering at T120: 1 ask unanswered for 250 ms. Its process may still run"
    ]
    four = changed((ONE, TWO, FOUR), (370, silent(3)), before=(ONE, TWO, THREE, FOUR), claims={*both, (FOUR, THREE)})
    assert "on all 3 links unanswered for 250 ms; node 2 and node 4 agree." in told(four, links=3)[0]
    # Only others have asked it.
    assert told(changed((ONE, TWO), claims={(TWO, THREE)})) == ["node 2 could not get an answer from node 3. Its process may still run"]


def test_a_dead_process_a_refusal_and_a_leave() -> None:
    dead = changed((ONE, TWO), (300, silent(3)), (310, Evidence(0, 3, "process_dead", "")))
    assert told(dead) == [
        "the engine of node 3 died at T310: the process that watches over it said so, so its machine still ran"
    ]
    refused = told(changed((ONE, TWO), (140, silent(3, refused=2)), claims={(ONE, THREE)}))
    assert refused == [
        "node 3 stopped answering at T120: 3 asks unanswered for 20 ms. "
        "Its machine says that nobody listens on the port: the process has probably ended"
    ]
    assert told(changed((ONE, TWO), (99, Evidence(0, 3, "left", "")))) == ["node 3 left at T99"]


def test_a_pair_that_cannot_be_together() -> None:
    """1 and 2 reach 3, 3 is reached by 1 only: told at each of the three."""
    claims = {(TWO, THREE)}
    assert told(changed((ONE, TWO), claims=claims, vouched=(THREE,))) == [
        "node 2 could not get an answer from node 3; others still hear it. Its process may still run"
    ]
    at_two = told(changed((ONE, TWO), (370, silent(3)), claims=claims, vouched=(THREE,)), local=2)
    assert "somebody else still hears it: whoever lacks a member's answers cannot be in one ring with it" in at_two[0]
    at_three = told(changed((THREE,), claims=claims, vouched=(THREE,), why="join of node 1"), local=3)
    assert at_three == [
        "node 1 did not take part (it began at T500: join of node 1)",
        "node 2 could not get an answer from node 3 and stays outside",
    ]


def test_those_who_come() -> None:
    assert told(changed((ONE, TWO, THREE), before=(ONE,))) == ["node 2 and node 3 joined at T510"]
    assert told(changed((ONE,), before=())) == ["this node started at T510, alone until it hears others"]
    again = Processor(3, THREE.boot, 999)
    assert told(changed((ONE, TWO, again))) == ["the engine of node 3 was started again"]
    assert told(changed((ONE, TWO, Processor(3, 7, 8)))) == ["node 3 was booted again"]
    assert told(changed((ONE, TWO, THREE), why="token lost in OPERATIONAL")) == [
        "the same members formed a new ring (it began at T500: token lost in OPERATIONAL)"
    ]


def test_a_node_that_slept_says_so_and_many_are_told_in_one_sentence() -> None:
    late = Evidence(0, 1, "late", "this node did not run for 900 ms")
    sentences = told(changed((ONE, TWO), (400, late), (450, Evidence(0, 3, "left", ""))))
    assert sentences == [
        "node 3 left at T450",
        "this node did not run for 900 ms until T400: what it missed then is no evidence against others",
    ]
    many = tuple(Processor(n, n, n) for n in range(1, 9))
    found = told(changed(many[:2], *((370, silent(n)) for n in range(3, 9)), before=many))
    assert len(found) == 1
    first = "node 3, node 4, node 5, node 6, node 7 and node 8 stopped answering; the first: node 3 stopped answering at T120"
    assert found[0].startswith(first)


def test_the_memory_of_changes_is_bounded() -> None:
    history = History()
    for i in range(1000):
        for _ in range(EVIDENCE_MAX * 2):
            history.noticed(2, "silent", "x")
        history.gathering("x")
        history.installed(RingId(i, 1), (ONE,), (ONE, TWO))
        history.stamp(i)
    assert (len(history.changes), history.total) == (CHANGES_MAX, 1000)
    assert max(len(c.evidence) for c in history.changes) == EVIDENCE_MAX


# --- the command ------------------------------------------------------------------------------------------------------------


def link(number: int, **changes: Any) -> dict[str, Any]:
    return {"link": number, "state": "up", "rtt_us": 212.4, "loss_percent": 0.0, "asked": 9, "answered": 9, "unanswered": 0,
            "heard_ms_ago": 34.2, "datagram_max": 1472, **changes}  # fmt: skip


def peer(nodeid: int, *links: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"nodeid": nodeid, "name": f"node{nodeid}", "member": True, "known": True, "heard_ms_ago": 34.2, "answered_ms_ago": 34.2,
            "owes_ms": 0.0, "asks": 0, "kept_outside": False, "link": 0, "links": list(links), **changes}  # fmt: skip


REPORT: dict[str, Any] = {
    "engine": "totem", "state": "operational", "local": 1, "ring": "12.1", "members": [1, 2], "forming": "",
    "peers": [
        peer(2, link(0, state="silent", rtt_us=None, loss_percent=12.5), link(1), link=1),
        peer(3, link(0, state="down here", heard_ms_ago=None, rtt_us=None, loss_percent=None), link(1, rtt_us=20_000.0),
             member=False, owes_ms=1234.5, kept_outside=True),
    ],
    "claims": [[1, 3]], "links_down": [0], "link_moves": 1,
    "token": {"resting_here": False, "rests_at": 2, "rotation_us": 462.4, "visits": 70, "retransmits": 3, "copies": 1},
    "traffic": {"ordered": 12, "received": 12, "delivered": 11, "safe": 10, "stored": 2, "queued": 1, "repaired": 4, "frame_copies": 0,
                "frame_max": 61440, "window": 1024},
    "drops": {"dropped_seal": 12, "segment_malformed": 1}, "counters": {"rings": 3}, "configurations": 4,
    "changes": [
        {"t": 1, "time": "12:00:00.000", "age_ms": 9.0, "ring": "8.1", "members": [1, 2, 3], "came": [3], "went": [], "took_ms": 0.0,
         "why": ["node3 (3) joined at 12:00:00.000"]},
        {"t": 2, "time": "12:03:04.370", "age_ms": 5.0, "ring": "12.1", "members": [1, 2], "came": [], "went": [3], "took_ms": 251.25,
         "why": ["node3 (3) stopped answering at 12:03:04.120: 3 asks on both links unanswered for 250 ms; node2 (2) agrees. "
                 "Its process may still run"]},
    ],
    "why": ["as above"], "channels": {"open": 1, "bundles": 7},
}  # fmt: skip

SHOWN = """\
engine    totem, operational
ring      12.1, members 1-2
token     rests at node2 (2) when nobody speaks, goes round in 462 us when somebody does; sent again 3 times
order     12 frames in this ring, 11 delivered, 1 messages wait; 4 frames were repaired for others since the start
frames    up to 61440 bytes
dropped   12 seal, 1 segment malformed
channels  7 bundles, 1 open
DOWN      this node's own end of link 0

NODE       STATE                        LINK             ROUND TRIP  LOSS    HEARD
node2 (2)  member                       0     silent     -           12.5 %  34 ms ago
                                        1*    up         212 us      0.0 %   34 ms ago
node3 (3)  outside, silent for 1234 ms  0*    down here  -           -       never
                                        1     up         20 ms       0.0 %   34 ms ago

round trips, as far as this node knows (+ yes, X no by the row's word, x no by the column's, ? unknown):
   1 2 3
 1 . + X
 2 + . ?
 3 x ? .

ring 12.1 since 12:03:04.370, 251.2 ms after the first doubt, members 1-2:
  node3 (3) stopped answering at 12:03:04.120: 3 asks on both links unanswered for 250 ms; node2 (2) agrees. Its process may still run
"""


def test_vcs_ring(run: Run, backend: Backend) -> None:
    backend.ring_report = REPORT
    got = run("ring")
    assert (got.code, got.err) == (0, "")
    assert got.out == SHOWN
    more = run("ring", "--changes", "2").out
    assert "ring 8.1 since 12:00:00.000, members 1-3:\n  node3 (3) joined at 12:00:00.000\n\nring 12.1 since" in more
    assert run("ring", "--json").json == {"version": 1, "ring": REPORT}


def test_vcs_ring_of_a_large_cluster_and_of_a_sparse_engine(run: Run, backend: Backend) -> None:
    backend.ring_report = {**REPORT, "peers": [peer(n, link(0)) for n in range(2, 30)]}
    assert "\nnode1 (1) has no round trip with node3 (3)\n" in run("ring").out
    backend.ring_report = {"engine": "other", "state": "up", "local": 1, "ring": "1.1", "members": [1]}
    assert run("ring").out == "engine  other, up\nring    1.1, members 1\n"


def test_only_vcsd_knows(run: Run) -> None:
    for command in ("ring", "metrics"):
        got = run(command)
        assert got.code == 75 and "vcsd is not running" in got.err


def test_vcs_metrics(run: Run, backend: Backend) -> None:
    assert run("metrics").out == "# TYPE vcs_quorate gauge\nvcs_quorate 1.0\n"
    assert run("metrics", "--json").json["metrics"].endswith("1.0\n")


def test_the_manual_names_every_command() -> None:
    text = (Path(__file__).parents[2] / "docs" / "man" / "vcs.1.md").read_text()
    told = re.findall(r"^\| `vcs ([a-z]+)", text, re.M)
    assert list(dict.fromkeys(told)) == list(COMMANDS), "the same commands in the same order as `vcs --help`"
