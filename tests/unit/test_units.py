# SPDX-License-Identifier: GPL-2.0-only
"""The units' order: what uses the DLM starts after it can be used and, since systemd stops in the reverse order, ends before vcsd."""

from __future__ import annotations

from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
DEBIANS: dict[str, dict[str, list[str]]] = {
    "lvmlocks.service": {"After": ["lvmlockd.service"], "Before": []},
    "lvmlockd.service": {"After": [], "Before": []},
}
"What the packages' own units say."


def parse(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).extend(value.split())
    return found


def order() -> dict[str, set[str]]:
    """Unit -> what starts after it."""
    later: dict[str, set[str]] = {}
    units = list(DEBIANS.items())
    units += [(p.name, parse(p)) for p in UNITS.glob("*.service")]
    units += [(p.parent.name.removesuffix(".d"), parse(p)) for p in UNITS.glob("*.d/*.conf")]
    for name, facts in units:
        for before in facts.get("After", []):
            later.setdefault(before, set()).add(name)
        later.setdefault(name, set()).update(facts.get("Before", []))
    return later


def after(first: str, last: str, edges: dict[str, set[str]]) -> bool:
    seen, todo = set(), [first]
    while todo:
        unit = todo.pop()
        if unit not in seen:
            seen.add(unit)
            todo += edges.get(unit, set())
    return last in seen


@pytest.mark.parametrize("user", ["remote-fs-pre.target", "lvmlockd.service", "lvmlocks.service", "vcs-md@.service"])
def test_users_of_the_dlm_come_after_it_is_there(user: str) -> None:
    edges = order()
    assert after("vcsd.service", user, edges) and after("vcs-ready.service", user, edges)


def test_volume_groups_stand_on_arrays_and_mounts_on_both() -> None:
    edges = order()
    assert after("vcs-md@.service", "lvmlocks.service", edges)
    assert after("lvmlocks.service", "remote-fs-pre.target", edges) and after("lvmlocks.service", "blk-availability.service", edges)


def test_nothing_waits_for_itself() -> None:
    edges = order()
    assert not [unit for unit in edges if any(after(next_, unit, edges) for next_ in edges[unit])]
