# SPDX-License-Identifier: GPL-2.0-only
"""The netlink interface only grows: what a release had (tests/golden/netlink, one list a release) keeps its number, its type and its
meaning in later ones, so that programs and modules of different releases understand each other or are refused by the version."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RELEASES = sorted((ROOT / "tests/golden/netlink").glob("*.txt"))


def promises(text: str) -> list[str]:
    """A line for each number that the spec fixes."""
    spec = yaml.safe_load(text)
    lines = [f"family {spec['name']} version {spec['version']}"]
    for item in spec["definitions"]:
        if item["type"] == "const":
            lines.append(f"const {item['name']} {item['value']}")
        else:
            start = item.get("value-start", 0)
            entries = [e if isinstance(e, str) else e["name"] for e in item["entries"]]
            lines += [f"{item['type']} {item['name']} {start + i} {name}" for i, name in enumerate(entries)]
    for table in spec["attribute-sets"]:
        for i, a in enumerate(table["attributes"], 1):
            of = a.get("enum") or a.get("nested-attributes") or ""
            lines.append(f"attribute {table['name']} {i} {a['name']} {a['type']} {of}".rstrip())
    for i, op in enumerate(spec["operations"]["list"], 1):
        lines.append(f"command {i} {op['name']}")
        for kind in ("do", "dump"):
            for way in ("request", "reply"):
                lines += [f"command {op['name']} {kind} {way} {n}" for n in op.get(kind, {}).get(way, {}).get("attributes", [])]
    return lines


def test_there_is_a_release() -> None:
    assert RELEASES


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_what_a_release_promised_holds(release: Path) -> None:
    now = set(promises((ROOT / "kmod/spec/vcs.yaml").read_text()))
    broken = [line for line in release.read_text().splitlines() if not line.startswith("#") and line not in now]
    assert not broken, f"changed since {release.stem}: add something new, and leave what there is"


def test_a_change_is_seen() -> None:
    text = (ROOT / "kmod/spec/vcs.yaml").read_text()
    before = promises(text)
    for old, new in (("name: session\n", "name: sessions\n"), ("name: group-stop\n", "name: group-halt\n"), ("type: u64", "type: u32")):
        changed = text.replace(old, new, 1)
        assert changed != text, old
        assert set(before) - set(promises(changed)), f"not seen: {old!r} -> {new!r}"
