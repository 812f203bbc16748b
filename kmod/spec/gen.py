# SPDX-License-Identifier: GPL-2.0-only
"""Makes everything that is made from vcs.yaml: uapi header, policies and operations, Python tables, reference page.

``python kmod/spec/gen.py`` writes the files, ``--check`` compares instead and fails when one is stale. Only what vcs.yaml uses of the
kernel's format is understood; anything else is an error, so that nothing is lost in silence (docs/decisions/0001-netlink-generator.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SPEC = Path("kmod/spec/vcs.yaml")
NOTICE = f"made from {SPEC} by `make gen`; do not edit"
SCALARS = {"u32": "NLA_U32", "u64": "NLA_U64"}
Table = dict[str, Any]


class SpecError(Exception):
    """vcs.yaml says something that this generator does not understand."""


def upper(name: str) -> str:
    return name.upper().replace("-", "_")


def lower(name: str) -> str:
    return name.lower().replace("-", "_")


def words(text: str) -> str:
    return " ".join(text.split())


class Spec:
    """vcs.yaml, with every value worked out."""

    def __init__(self, text: str) -> None:
        raw: Table = yaml.safe_load(text)
        if raw["protocol"] != "genetlink-legacy" or raw["kernel-policy"] != "per-op":
            raise SpecError("genetlink-legacy with a policy per operation is expected")
        self.name: str = raw["name"]
        self.version: int = raw["version"]
        self.doc = words(raw["doc"])
        self.header: str = raw["uapi-header"]
        self.c_name, self.c_version = upper(raw["c-family-name"]), upper(raw["c-version-name"])
        self.consts: dict[str, int] = {}
        self.enums: dict[str, Table] = {}
        for item in raw["definitions"]:
            if item["type"] == "const":
                self.consts[item["name"]] = item["value"]
            elif item["type"] in ("enum", "flags"):
                self.enums[item["name"]] = self._enum(item)
            else:
                raise SpecError(f"definition {item['name']}: type {item['type']}")
        self.sets: dict[str, Table] = {s["name"]: self._set(s) for s in raw["attribute-sets"]}
        self.cmd_prefix: str = raw["operations"]["name-prefix"]
        self.ops: list[Table] = [self._op(i, op) for i, op in enumerate(raw["operations"]["list"], 1)]
        self.mcast: list[str] = [g["name"] for g in raw["mcast-groups"]["list"]]

    def _enum(self, item: Table) -> Table:
        flags = item["type"] == "flags"
        entries = []
        for i, raw in enumerate(item["entries"]):
            entry = {"name": raw} if isinstance(raw, str) else dict(raw)
            entry["value"] = 1 << i if flags else item.get("value-start", 0) + i
            entries.append(entry)
        prefix = item.get("name-prefix", f"{self.name}-{item['name']}-")
        return {"flags": flags, "doc": words(item.get("doc", "")), "entries": entries, "prefix": prefix}

    def _set(self, item: Table) -> Table:
        attributes: dict[str, Table] = {}
        for i, raw in enumerate(item["attributes"], 1):
            if raw["type"] not in (*SCALARS, "string", "binary", "nest", "pad"):
                raise SpecError(f"attribute {raw['name']}: type {raw['type']}")
            if "enum" in raw and raw["enum"] not in self.enums:
                raise SpecError(f"attribute {raw['name']}: enum {raw['enum']} is not defined")
            attributes[raw["name"]] = {**raw, "value": i, "doc": words(raw.get("doc", ""))}
        return {"prefix": item["name-prefix"], "enum": item["enum-name"], "attributes": attributes}

    def _op(self, value: int, raw: Table) -> Table:
        known = self.sets[raw["attribute-set"]]["attributes"]

        def attrs(kind: str, direction: str) -> list[str] | None:
            if kind not in raw:
                return None
            part = raw[kind] if direction == "" else raw[kind].get(direction, {})
            names: list[str] = part.get("attributes", [])
            unknown = [n for n in names if n not in known]
            if unknown:
                raise SpecError(f"{raw['name']}: no attribute {unknown[0]}")
            return names

        return {
            "name": raw["name"], "value": value, "doc": words(raw["doc"]), "set": raw["attribute-set"],
            "mcgrp": raw.get("mcgrp"), "event": attrs("event", ""),
            "do": attrs("do", "request"), "do_reply": attrs("do", "reply"),
            "dump": attrs("dump", "request"), "dump_reply": attrs("dump", "reply"),
            "start": raw.get("dump", {}).get("pre"), "done": raw.get("dump", {}).get("post"),
        }  # fmt: skip

    def request(self, op: Table) -> list[str]:
        """Every attribute that a request of ``op`` may carry, in the order of the attribute set."""
        names = {*(op["do"] or []), *(op["dump"] or [])}
        return [n for n in self.sets[op["set"]]["attributes"] if n in names]

    def requests(self) -> list[Table]:
        return [op for op in self.ops if op["event"] is None]


# --- C ---------------------------------------------------------------------------------------------------------------


def c_comment(text: str, indent: str = "") -> list[str]:
    """A block comment of at most 80 columns (the kernel's width)."""
    lines, line = [], ""
    for word in text.split():
        if line and len(indent) * 8 + len(line) + len(word) > 74:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    if len(lines) == 1:
        return [f"{indent}/* {lines[0]} */"]
    return [f"{indent}/*", *(f"{indent} * {x}" for x in lines), f"{indent} */"]


def c_banner(licence: str, header: bool) -> list[str]:
    mark = f"/* SPDX-License-Identifier: {licence} */" if header else f"// SPDX-License-Identifier: {licence}"
    return [mark, f"/* {NOTICE} */", ""]


def uapi(spec: Spec) -> str:
    guard = f"_UAPI_{upper(spec.header.replace('/', '_').replace('.', '_'))}"
    out = c_banner("GPL-2.0 WITH Linux-syscall-note", True)
    out += [f"#ifndef {guard}", f"#define {guard}", ""]
    out += [f'#define {spec.c_name}\t"{spec.name}"', f"#define {spec.c_version}\t{spec.version}", ""]
    out += [f"#define {upper(spec.name)}_{upper(n)}\t{v}" for n, v in spec.consts.items()]
    for name, enum in spec.enums.items():
        out += ["", *(c_comment(enum["doc"]) if enum["doc"] else []), f"enum {spec.name}_{lower(name)} {{"]
        for i, entry in enumerate(enum["entries"]):
            if "doc" in entry:
                out += c_comment(entry["doc"], "\t")
            start = f" = {entry['value']}" if enum["flags"] or (i == 0 and entry["value"]) else ""
            out.append(f"\t{upper(enum['prefix'] + entry['name'])}{start},")
        out.append("};")
    for table in spec.sets.values():
        prefix = upper(table["prefix"])
        out += ["", f"enum {lower(table['enum'])} {{"]
        for i, attr in enumerate(table["attributes"].values()):
            if attr["doc"]:
                out += c_comment(attr["doc"], "\t")
            out.append(f"\t{prefix}{upper(attr['name'])}{' = 1' if i == 0 else ''},")
        out += ["", f"\t__{prefix}MAX,", f"\t{prefix}MAX = (__{prefix}MAX - 1)", "};"]
    prefix = upper(spec.cmd_prefix)
    out += ["", "enum {"]
    for op in spec.ops:
        out += c_comment(op["doc"], "\t")
        out.append(f"\t{prefix}{upper(op['name'])}{' = 1' if op['value'] == 1 else ''},")
    out += ["", f"\t__{prefix}MAX,", f"\t{prefix}MAX = (__{prefix}MAX - 1)", "};", ""]
    out += [f'#define {upper(spec.name)}_MCGRP_{upper(g)}\t"{g}"' for g in spec.mcast]
    return "\n".join([*out, "", f"#endif /* {guard} */", ""])


def c_policy(spec: Spec, attr: Table) -> str:
    """The initializer of one attribute in a policy table."""
    kind, checks = attr["type"], attr.get("checks", {})
    if "enum" in attr:
        enum = spec.enums[attr["enum"]]
        values = [e["value"] for e in enum["entries"]]
        if enum["flags"]:
            return f"NLA_POLICY_MASK({SCALARS[kind]}, {hex(sum(values))})"
        return f"NLA_POLICY_RANGE({SCALARS[kind]}, {values[0]}, {values[-1]})"
    if kind in SCALARS:
        if "min" in checks:
            return f"NLA_POLICY_MIN({SCALARS[kind]}, {checks['min']})"
        if "max" in checks:
            return f"NLA_POLICY_MAX({SCALARS[kind]}, {checks['max']})"
        return f"{{ .type = {SCALARS[kind]}, }}"
    if kind == "string":
        return f"{{ .type = NLA_NUL_STRING, .len = {checks['max-len']}, }}"
    if kind == "binary":
        return f"{{ .type = NLA_BINARY, .len = {checks['max-len']}, }}"
    if kind == "nest":
        return f"NLA_POLICY_NESTED({spec.name}_{lower(attr['nested-attributes'])}_nl_policy)"
    raise SpecError(f"attribute {attr['name']}: {kind} in a request")


def nested_sets(spec: Spec) -> list[str]:
    return [n for n in spec.sets if any(a.get("nested-attributes") == n for s in spec.sets.values() for a in s["attributes"].values())]


def genl_h(spec: Spec) -> str:
    guard = f"_LINUX_{upper(spec.name)}_GEN_H"
    out = c_banner("GPL-2.0", True)
    out += [f"#ifndef {guard}", f"#define {guard}", "", "#include <net/genetlink.h>", "#include <net/netlink.h>", ""]
    out += [f"#include <uapi/{spec.header}>", ""]
    for name in nested_sets(spec):
        out.append(f"extern const struct nla_policy {spec.name}_{lower(name)}_nl_policy[{upper(spec.sets[name]['prefix'])}MAX + 1];")
    out += ["", f"extern const struct genl_ops {spec.name}_nl_ops[{len(spec.requests())}];", ""]
    for op in spec.requests():
        name = f"{spec.name}_nl_{lower(op['name'])}"
        if op["do"] is not None:
            out.append(f"int {name}_doit(struct sk_buff *skb, struct genl_info *info);")
        if op["dump"] is not None:
            out.append(f"int {name}_dumpit(struct sk_buff *skb, struct netlink_callback *cb);")
        out += [f"int {lower(op[f])}(struct netlink_callback *cb);" for f in ("start", "done") if op[f]]
    out += ["", "enum {", *(f"\t{upper(spec.name)}_NLGRP_{upper(g)}," for g in spec.mcast), "};"]
    return "\n".join([*out, "", f"#endif /* {guard} */", ""])


def genl_c(spec: Spec) -> str:
    out = c_banner("GPL-2.0", False)
    out += ['#include "genl.h"']
    for name in nested_sets(spec):
        table = spec.sets[name]
        prefix = upper(table["prefix"])
        out += ["", f"const struct nla_policy {spec.name}_{lower(name)}_nl_policy[{prefix}MAX + 1] = {{"]
        out += [f"\t[{prefix}{upper(a['name'])}] = {c_policy(spec, a)}," for a in table["attributes"].values() if a["type"] != "pad"]
        out.append("};")
    ops = [f"const struct genl_ops {spec.name}_nl_ops[{len(spec.requests())}] = {{"]
    for op in spec.requests():
        prefix = upper(spec.sets[op["set"]]["prefix"])
        names, stem = spec.request(op), f"{spec.name}_nl_{lower(op['name'])}"
        policy = f"{spec.name}_{lower(op['name'])}_nl_policy"
        if names:
            out += ["", f"static const struct nla_policy {policy}[{prefix}{upper(names[-1])} + 1] = {{"]
            attributes = spec.sets[op["set"]]["attributes"]
            out += [f"\t[{prefix}{upper(n)}] = {c_policy(spec, attributes[n])}," for n in names]
            out.append("};")
        ops += ["\t{", f"\t\t.cmd\t\t= {upper(spec.cmd_prefix + op['name'])},"]
        if op["do"] is not None:
            ops.append(f"\t\t.doit\t\t= {stem}_doit,")
        if op["dump"] is not None:
            ops.append(f"\t\t.dumpit\t\t= {stem}_dumpit,")
        ops += [f"\t\t.{f}\t\t= {lower(op[f])}," for f in ("start", "done") if op[f]]
        if names:
            ops += [f"\t\t.policy\t\t= {policy},", f"\t\t.maxattr\t= {prefix}{upper(names[-1])},"]
        ops.append("\t},")
    return "\n".join([*out, "", *ops, "};", ""])


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
    out += [")", "COMMANDS: Final[dict[str, int]] = {op.name: op.value for op in OPS}", ""]
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
    "vcs/_spec.py": python,
    "docs/netlink.md": page,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    check: bool = parser.parse_args().check
    spec = Spec((ROOT / SPEC).read_text())
    stale = []
    for name, make in OUTPUTS.items():
        path, text = ROOT / name, make(spec)
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
