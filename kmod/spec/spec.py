# SPDX-License-Identifier: GPL-2.0-only
"""vcs.yaml, read and checked, for the generators beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SPEC = Path("kmod/spec/vcs.yaml")
NOTICE = f"made from {SPEC} by `make gen`; do not edit"
SCALARS = {"u32": "NLA_U32", "u64": "NLA_U64"}
OPTIONAL = {
    "provider", "lease-ms", "grace-ms", "view-flags", "member", "error", "level", "group-flags", "owner", "claim-data", "votes",
    "join-id", "config",
}  # fmt: skip
"What a request may lack; everything else that it may carry, it must (the kernel's format has no word for it)."
OPTIONAL_IN = {("provider-detach", "session")}
"(command, attribute): what a request may lack in this one command."
PROVIDERS = ("heartbeat",)
"Attribute sets that a provider's own module reads, in a nest that the switch hands on unread."
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
