# SPDX-License-Identifier: GPL-2.0-only
"""From the text of cluster.toml to a ClusterConfig, with every error at once.

An error reads ``file:line: key: what is wrong; remedy``. Reading (types, ranges, unknown keys) happens here from vcs/config/schema.py;
rules between keys are in vcs/config/rules.py; the key file is in vcs/config/keyfile.py.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vcs.config import keyfile, rules, rules_dlm, rules_fencing
from vcs.config.lines import Path as KeyPath
from vcs.config.lines import key_lines
from vcs.config.model import (
    ClusterConfig,
    DlmConfig,
    FenceDevice,
    FenceMethod,
    FencingConfig,
    GroupsConfig,
    LeaseConfig,
    LockspaceConfig,
    MetricsConfig,
    NodeConfig,
    QuorumConfig,
    RestartConfig,
    TotemConfig,
    WitnessConfig,
)
from vcs.config.problems import Problems
from vcs.config.schema import SECTIONS, WEIGHT_MAX, Key, Kind, Section, section
from vcs.errors import ConfigError

DEFAULT_PATH = "/etc/vcs/cluster.toml"
SIZE_MAX = 1 << 20
"Bytes. A cluster.toml above this is no configuration."

Values = dict[str, Any]


def load(path: str | Path, with_key: bool = True) -> ClusterConfig:
    """Read and check a cluster.toml. Raises ConfigError with every problem found.

    ``with_key=False`` leaves the key file alone, for people who may read the configuration but not the key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}; see cluster.toml(5) for an example"]) from None
    if len(data) > SIZE_MAX:
        raise ConfigError([f"{path}: larger than {SIZE_MAX} bytes; this is no cluster.toml"])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8; save the file as UTF-8"]) from None
    return loads(text, str(path), base=path.parent, with_key=with_key)


def loads(text: str, source: str = "cluster.toml", base: Path | None = None, with_key: bool = True) -> ClusterConfig:
    """The same from a text; ``base`` is the folder that a relative ``key_file`` starts from (default: the current one)."""
    try:
        tree = tomllib.loads(text)
        lines = key_lines(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError([_syntax_error(source, error)]) from None
    problems = Problems(source, lines)
    values = {s.name: _read_section(s, tree, problems) for s in SECTIONS if not s.array and "." not in s.name}
    nodes = _read_array("node", tree, problems)
    devices = _read_array("fence_device", tree, problems)
    _unknown(tree, (), [s.name for s in SECTIONS if "." not in s.name], problems, what="section", foreign={})
    rules.check(values, nodes, problems)
    rules_fencing.check(values["fencing"], nodes, devices, problems)
    lockspaces = rules_dlm.check(values["dlm"].pop("lockspace", []), nodes, problems)
    keys: tuple[bytes, ...] = ()
    if with_key:
        keys = keyfile.check(values["cluster"], base or Path(), problems)
    problems.raise_if_any()
    return _build(values, nodes, devices, lockspaces, keys)


def _syntax_error(source: str, error: Exception) -> str:
    """tomllib's own words, with its position moved to where every other error has it."""
    if isinstance(error, RecursionError):
        return f"{source}: nested too deeply; this is no cluster.toml"
    text = str(error)
    found = re.search(r" \(at line (\d+), column (\d+)\)$", text)
    if found is None:
        return f"{source}: not valid TOML: {text.removesuffix(' (at end of document)')}; see cluster.toml(5)"
    return f"{source}:{found[1]}: not valid TOML: {text[: found.start()]} in column {found[2]}; see cluster.toml(5)"


def _unknown(
    table: Mapping[str, object], path: KeyPath, known: list[str], problems: Problems, *, what: str, foreign: Mapping[str, str]
) -> None:
    for name in table:
        if name in known:
            continue
        if name in foreign:
            problems.add((*path, name), foreign[name])
            continue
        close = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "known are " + ", ".join(known)
        problems.add((*path, name), f"unknown {what}", remedy)


def _read_section(sec: Section, tree: Mapping[str, object], problems: Problems, path: KeyPath = ()) -> Values:
    """The table of ``sec`` in ``tree``, which stands at ``path``."""
    last = sec.name.rpartition(".")[2]
    table = tree.get(last, {})
    if not isinstance(table, dict):
        problems.add((*path, last), "must be a table", f"write it as [{sec.name}]")
        table = {}
    return _read_table(sec, table, (*path, last), problems)


def _read_array(name: str, tree: Mapping[str, object], problems: Problems, path: KeyPath = ()) -> list[Values]:
    """The tables ``[[name]]`` of ``tree``, which stands at ``path``."""
    last = name.rpartition(".")[2]
    tables = tree.get(last, [])
    if isinstance(tables, dict):
        problems.add((*path, last), "is a single table", f"write [[{name}]] with two brackets, once per {last.replace('_', ' ')}")
        return []
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        problems.add((*path, last), "must be a list of tables", f"write [[{name}]], once per {last.replace('_', ' ')}")
        return []
    found = []
    for i, table in enumerate(tables):
        values = _read_table(section(name), table, (*path, last, i), problems)
        values["_path"] = (*path, last, i)
        found.append(values)
    return found


def _read_table(sec: Section, table: Mapping[str, object], path: KeyPath, problems: Problems) -> Values:
    """The values of one table that are right, by key; what is wrong goes to ``problems`` and is left out."""
    _unknown(table, path, [k.name for k in sec.keys], problems, what="key", foreign=dict(sec.foreign))
    values: Values = {}
    for key in sec.keys:
        if key.name not in table:
            if key.required:
                problems.add((*path, key.name), "missing", f"add it: {key.doc[0].lower()}{key.doc[1:].rstrip('.')}")
            continue
        if key.kind is Kind.TABLES:
            values[key.name] = _read_array(f"{sec.name}.{key.name}", table, problems, path)
            continue
        if key.kind is Kind.TABLE:
            values[key.name] = _read_section(section(f"{sec.name}.{key.name}"), table, problems, path)
            continue
        found = _CHECKS[key.kind](key, table[key.name])
        if found:
            problems.add((*path, key.name), *found)
        else:
            values[key.name] = _convert(key, table[key.name])
    return values


Finding = tuple[str, str] | None
"What is wrong with a value and the remedy, or None."


def _wrong_int(key: Key, value: object) -> Finding:
    remedy = f"write a whole number from {key.low} to {key.high}"
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{_shown(value)} is no whole number", remedy
    if not key.low <= value <= key.high:
        return f"{_shown(value)} is out of range", remedy
    return None


def _wrong_string(key: Key, value: object) -> Finding:
    if not isinstance(value, str):
        return f"{_shown(value)} is no string", "write it in quotes"
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        return f"{_shown(value)} holds a control character", "remove it"
    if key.choices and value not in key.choices:
        return f"{_shown(value)} is not among the choices", f"write one of {', '.join(key.choices)}"
    if len(value) < key.low:
        return "is empty", "write a value, or remove the line"
    if key.high and len(value) > key.high:
        return f"is {len(value)} characters long", f"at most {key.high} are allowed"
    if key.pattern and not key.pattern.fullmatch(value):
        return f"{_shown(value)} cannot be used", f"use {key.pattern_text}"
    return None


def _wrong_bool(_key: Key, value: object) -> Finding:
    return None if isinstance(value, bool) else (f"{_shown(value)} is neither true nor false", "write true or false, without quotes")


def _wrong_strings(key: Key, value: object) -> Finding:
    remedy = f'write a list of {key.low} to {key.high} strings, for example ["192.0.2.1"]'
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        return f"{_shown(value)} is no list of strings", remedy
    if not key.low <= len(value) <= key.high:
        return f"has {len(value)} entries", remedy
    return None


def _wrong_options(_key: Key, value: object) -> Finding:
    """Options go to an agent as ``name=value`` lines, so neither may hold a line end, and a name no equals sign."""
    if not isinstance(value, dict):
        return f"{_shown(value)} is no table of options", 'write { name = "value" }'
    for name, option in value.items():
        if not isinstance(option, str | int | bool):
            return f"option {name!r} is {_shown(option)}", "write a string, a whole number, true or false"
        if not name or "=" in name or any(ord(c) < 33 for c in name):
            return f"option {name!r} is no usable name", "see the agent's own manual"
        if isinstance(option, str) and any(ord(c) < 32 for c in option):
            return f"option {name!r} holds a control character", "remove it"
    return None


def _wrong_weights(_key: Key, value: object) -> Finding:
    remedy = f"write {{ NODE = WEIGHT }}, each weight a whole number from 0 to {WEIGHT_MAX}"
    if not isinstance(value, dict):
        return f"{_shown(value)} is no table of weights", remedy
    for name, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= WEIGHT_MAX:
            return f"the weight of {name!r} is {_shown(weight)}", remedy
    return None


def _wrong_device_options(key: Key, value: object) -> Finding:
    if isinstance(value, dict):
        for name, options in value.items():
            if isinstance(options, dict) and (found := _wrong_options(key, options)):
                return f"{name}: {found[0]}", found[1]
        value = {name: option for name, option in value.items() if not isinstance(option, dict)}
    return _wrong_options(key, value)


_CHECKS: dict[Kind, Callable[[Key, object], Finding]] = {
    Kind.INT: _wrong_int,
    Kind.STRING: _wrong_string,
    Kind.BOOL: _wrong_bool,
    Kind.STRINGS: _wrong_strings,
    Kind.OPTIONS: _wrong_options,
    Kind.WEIGHTS: _wrong_weights,
    Kind.DEVICE_OPTIONS: _wrong_device_options,
}


def _shown(value: object) -> str:
    """A value as a person wrote it, cut to a readable length."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        text = repr(value)
    except ValueError:  # an integer beyond the interpreter's limit for decimal digits
        return "a huge number"
    return text if len(text) <= 40 else text[:37] + "..."


def _convert(key: Key, value: Any) -> Any:
    if key.kind is Kind.STRINGS:
        return tuple(value)
    if key.kind is Kind.OPTIONS:
        return {name: _option_text(option) for name, option in value.items()}
    if key.kind is Kind.DEVICE_OPTIONS:
        found = {name: {k: _option_text(v) for k, v in table.items()} for name, table in value.items() if isinstance(table, dict)}
        common = {name: _option_text(option) for name, option in value.items() if not isinstance(option, dict)}
        return found | ({"": common} if common else {})
    return value


def _option_text(option: str | int | bool) -> str:
    """Fence agents spell a boolean 1 or 0."""
    return str(int(option)) if isinstance(option, bool) else str(option)


def _node(values: Values) -> NodeConfig:
    methods = tuple(FenceMethod(**_own(m)) for m in values.get("method", ()))
    return NodeConfig(**{k: v for k, v in _own(values).items() if k not in ("address", "method")}, methods=methods)


def _quorum(values: Values) -> QuorumConfig:
    witness = values.get("witness")
    return QuorumConfig(**{k: v for k, v in values.items() if k != "witness"}, witness=WitnessConfig(**witness) if witness else None)


def _own(values: Values) -> Values:
    return {k: v for k, v in values.items() if k != "_path"}


def _build(
    values: Mapping[str, Values], nodes: list[Values], devices: list[Values], lockspaces: tuple[LockspaceConfig, ...],
    keys: tuple[bytes, ...],
) -> ClusterConfig:
    return ClusterConfig(
        nodes=tuple(_node(n) for n in nodes),
        fence_devices=tuple(FenceDevice(**_own(d)) for d in devices),
        key=keys[0] if keys else b"",
        more_keys=keys[1:],
        totem=TotemConfig(**values["totem"]),
        quorum=_quorum(values["quorum"]),
        groups=GroupsConfig(**values["groups"]),
        fencing=FencingConfig(**values["fencing"]),
        lease=LeaseConfig(**values["lease"]),
        restart=RestartConfig(**values["restart"]),
        dlm=DlmConfig(**values["dlm"], lockspaces=lockspaces),
        metrics=MetricsConfig(**values["metrics"]),
        **values["cluster"],
    )
