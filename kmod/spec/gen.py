# SPDX-License-Identifier: GPL-2.0-only
"""Makes everything that is made from vcs.yaml (uapi header, policies and operations, Python tables, reference page) and observe.yaml
(the files of sysfs, the tracepoints, and their page).

``python kmod/spec/gen.py`` writes the files, ``--check`` compares instead and fails when one is stale. Only what vcs.yaml uses of the
kernel's format is understood; anything else is an error, so that nothing is lost in silence (docs/decisions/0001-netlink-generator.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import observe
from c_code import genl_c, genl_h, heartbeat_policy, uapi
from spec import NOTICE, OPTIONAL, OPTIONAL_IN, SPEC, Spec, upper, words

ROOT = Path(__file__).resolve().parents[2]

# --- Python and the page ---------------------------------------------------------------------------------------------


def py_tuple(names: list[str] | None) -> str:
    if names is None:
        return "None"
    return "(" + ", ".join(f'"{n}"' for n in names) + ("," if len(names) == 1 else "") + ")"


def python(spec: Spec) -> str:
    out = ["# SPDX-License-Identifier: GPL-2.0-only", f'"""Tables of the netlink family, {NOTICE}."""', "", "# ruff: noqa: E501", ""]
    out += ["from __future__ import annotations", "", "from typing import Final, NamedTuple", "", ""]
    out += ["class Attr(NamedTuple):", '    """One attribute. ``type``: u32, u64, string (NUL-terminated), binary, nest, pad."""', ""]
    out += ["    name: str", "    value: int", "    type: str", '    nested: str = ""', '    "Name of the attribute set in a nest."']
    out += ["    multi: bool = False", '    "Repeated at the level it stands on."', '    enum: str = ""', "", ""]
    out += ["class Op(NamedTuple):", '    """One command: attributes of its requests and answers; None where it has no such form."""', ""]
    out += ["    name: str", "    value: int", "    do: tuple[str, ...] | None", "    do_reply: tuple[str, ...] | None"]
    out += ["    dump: tuple[str, ...] | None", "    dump_reply: tuple[str, ...] | None", "    event: tuple[str, ...] | None", ""]
    out += ["", f'FAMILY: Final = "{spec.name}"', f"VERSION: Final = {spec.version}"]
    out += [f"{upper(n)}: Final = {v}" for n, v in spec.consts.items()]
    out += ["MCAST_GROUPS: Final[tuple[str, ...]] = " + py_tuple(spec.mcast), "", "ENUMS: Final[dict[str, dict[str, int]]] = {"]
    for name, enum in spec.enums.items():
        out.append(f'    "{name}": {{' + ", ".join(f'"{e["name"]}": {e["value"]}' for e in enum["entries"]) + "},")
    out += ["}", "", "ATTRIBUTE_SETS: Final[dict[str, tuple[Attr, ...]]] = {"]
    for name, table in spec.sets.items():
        out.append(f'    "{name}": (')
        for a in table["attributes"].values():
            extra = f', nested="{a["nested-attributes"]}"' if "nested-attributes" in a else ""
            extra += ", multi=True" if a.get("multi-attr") else ""
            extra += f', enum="{a["enum"]}"' if "enum" in a else ""
            out.append(f'        Attr("{a["name"]}", {a["value"]}, "{a["type"]}"{extra}),')
        out.append("    ),")
    out += ["}", "", "OPS: Final[tuple[Op, ...]] = ("]
    for op in spec.ops:
        parts = ", ".join(f"{k}={py_tuple(op[k])}" for k in ("do", "do_reply", "dump", "dump_reply", "event"))
        out.append(f'    Op("{op["name"]}", {op["value"]}, {parts}),')
    known = sorted(OPTIONAL)
    out += [")", "OPTIONAL: Final[frozenset[str]] = frozenset(" + py_tuple(known) + ")", '"What a request may lack."']
    pairs = ", ".join(f'("{op}", "{name}")' for op, name in sorted(OPTIONAL_IN))
    out += [f"OPTIONAL_IN: Final[frozenset[tuple[str, str]]] = frozenset(({pairs},))", '"(command, attribute): what it may lack there."']
    out += ["COMMANDS: Final[dict[str, int]] = {op.name: op.value for op in OPS}", ""]
    return "\n".join(out)


def page(spec: Spec) -> str:
    out = [f"<!-- {NOTICE} -->", f"# The netlink family `{spec.name}`", "", spec.doc, ""]
    out += [f"Family version {spec.version}. Constants: " + ", ".join(f"{n} {v}" for n, v in spec.consts.items()) + ".", ""]
    out += ["## Commands", ""]
    for op in spec.requests():
        out += [f"### {op['name']} ({op['value']})", "", op["doc"], ""]
        for key, what in (("do", "request"), ("do_reply", "answer"), ("dump", "dump request"), ("dump_reply", "dump answer")):
            if op[key]:
                out.append(f"- {what}: " + ", ".join(op[key]))
        out.append("")
    out += [f"## Hints (multicast group {', '.join(spec.mcast)})", "", "| hint | value | attributes | when |", "| --- | --- | --- | --- |"]
    out += [f"| {o['name']} | {o['value']} | {', '.join(o['event'])} | {o['doc']} |" for o in spec.ops if o["event"] is not None]
    for name, table in spec.sets.items():
        out += ["", f"## Attributes: {name}", "", "| attribute | value | type | meaning |", "| --- | --- | --- | --- |"]
        for a in table["attributes"].values():
            kind = a["type"] + (f" of {a['nested-attributes']}" if "nested-attributes" in a else "")
            kind += (", repeated" if a.get("multi-attr") else "") + (f" ({a['enum']})" if "enum" in a else "")
            out.append(f"| {a['name']} | {a['value']} | {kind} | {a['doc']} |")
    out += ["", "## Enumerations", ""]
    for name, enum in spec.enums.items():
        values = ", ".join(f"{e['name']} {e['value']}" for e in enum["entries"])
        out.append(f"- **{name}**{' (flags)' if enum['flags'] else ''}: {values}. {enum['doc']}".rstrip())
        out += [f"  - {e['name']}: {words(e['doc'])}" for e in enum["entries"] if "doc" in e]
    return "\n".join([*out, ""])


OUTPUTS = {
    "kmod/include/uapi/linux/vcs.h": uapi,
    "kmod/genl.h": genl_h,
    "kmod/genl.c": genl_c,
    "kmod/heartbeat/policy.h": heartbeat_policy,
    "vcs/_spec.py": python,
    "docs/netlink.md": page,
}
OBSERVED = {
    "kmod/sysfs_files.h": observe.sysfs_files,
    "kmod/trace.h": observe.trace_h,
    "docs/observe.md": observe.page,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    check: bool = parser.parse_args().check
    spec, seen = Spec((ROOT / SPEC).read_text()), observe.load(ROOT)
    made = {name: make(spec) for name, make in OUTPUTS.items()}
    made |= {name: make(seen) for name, make in OBSERVED.items()}
    stale = []
    for name, text in made.items():
        path = ROOT / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"written: {name}")
    if check and stale:
        print(f"stale: {', '.join(stale)}; run `make gen`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
