# SPDX-License-Identifier: GPL-2.0-only
"""The thirty scenarios by number, what each is about, and the tests that play them; docs/scenarios.md is made from this.

A test belongs to scenario 7 if its name begins with ``test_t07_``, wherever it stands, or if ALSO says so;
``python -m tests.scenarios.index`` writes the page, and test_index.py compares.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scenarios.md"

TITLES = {
    1: "One pair of n blocked, one direction of one pair, chains: few configurations, the quorate side serves",
    2: "Two sides that hold stale opinions of each other meet again",
    3: "The representative restarts faster than anybody notices, with its stored ring sequence or without",
    4: "Large frames, or too many, vanish on the way to one node",
    5: "No storm of repairs on a lossy, idle ring",
    6: "A lost last message on an idle ring is repaired at once",
    7: "A gap larger than any window",
    8: "Whatever numbers a peer sends, nothing is asserted on them",
    9: "Every datagram comes several times and out of order",
    10: "A node stands still, in every state, shorter and longer than the detection time",
    11: "A node restarts in a loop under a load of large messages",
    12: "The largest messages and recovery",
    13: "A member dies at every phase of a group's event",
    14: "A machine that stood still learns that the others went on",
    15: "Nodes with different configurations, one changed after the other",
    16: "Leaves, lost leaves, several at once",
    17: "Members have one order everywhere",
    18: "Data is slower than the token",
    19: "Path MTU, IPv4 and IPv6",
    20: "One of two links flaps: no configuration changes",
    21: "Ten thousand configuration changes: memory is flat",
    22: "2 to 64 nodes: all start, all stop, half of them die",
    23: "Malformed, replayed, foreign and forged frames",
    24: "Nothing can be sent for a minute",
    25: "How long a reformation takes, as a distribution",
    26: "One node is ten times slower",
    27: "Clocks that are set, and clocks that drift",
    28: "The key is changed while the cluster runs",
    29: "Two clusters on one network",
    30: "The store for the ring sequence is slow, or fails",
}

ALSO = {
    "test_large_messages_over_a_small_mtu_and_a_path_that_shrinks": 19,
    "test_large_segments_that_vanish_unseen": 19,
    "test_multicast_over_ipv6": 19,
    "test_a_link_that_fails_changes_no_configuration": 20,
    "test_a_flapping_link_is_not_noticed_above": 20,
    "test_what_is_not_ours_is_counted_and_dropped": 23,
    "test_keys_are_rotated_while_messages_flow": 28,
    "test_another_cluster_and_garbage_on_the_same_port_are_harmless": 29,
    "test_a_node_is_added_and_removed_while_the_others_run": 15,
    "test_nothing_is_said_before_the_sequence_is_stored_and_the_loop_goes_on": 30,
    "test_new_rings_need_no_disk": 30,
    "test_a_full_disk_is_told_early_and_ends_the_engine_when_the_reserve_is_used_up": 30,
}
"Tests of the driver that play a scenario with real processes, under names of their own."

MARKED = re.compile(r"test_t(\d\d)_\w+")


def tests() -> dict[int, list[tuple[str, str, str]]]:
    """Number -> (file, test, first line of what it says), in the order of the files."""
    found: dict[int, list[tuple[str, str, str]]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            match = MARKED.fullmatch(node.name)
            number = int(match[1]) if match else ALSO.get(node.name, 0)
            if number:
                said = (ast.get_docstring(node) or "").strip().split("\n")[0]
                found.setdefault(number, []).append((path.relative_to(ROOT).as_posix(), node.name, said))
    return found


def page() -> str:
    lines = [
        "# The thirty scenarios",
        "",
        "Known pains of totem implementations, each turned into a test. In `tests/scenarios/` they are scripts on the simulator, under all",
        "checkers of extended virtual synchrony; their logs of a run without chance are recorded in `tests/golden/totem/` (`make golden`",
        "records anew), and each also runs with other cases and varying delays. What needs real sockets is in `tests/process/`.",
        "This page is made by `python -m tests.scenarios.index`.",
        "",
    ]
    found = tests()
    for number, title in TITLES.items():
        lines += [f"## T{number}. {title}", ""]
        last = ""
        for file, name, said in found.get(number, []):
            if file != last:
                lines.append(f"- `{file}`")
                last = file
            lines.append(f"  - `{name}`{f': {said}' if said else ''}")
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def main() -> int:
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
