# SPDX-License-Identifier: GPL-2.0-only
"""Rules between the keys that say how nodes are fenced. What the agents themselves know and demand is checked by vcs/agents.py."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from vcs.config.lines import Path
from vcs.config.model import SELF
from vcs.config.problems import Problems
from vcs.config.schema import default_of, section

Values = Mapping[str, Any]


def check(fencing: Values, nodes: Sequence[Values], devices: Sequence[Values], problems: Problems) -> None:
    _check_simple(fencing, problems)
    names = _check_devices(fencing, devices, problems)
    for node in nodes:
        for method in node.get("method", ()):
            _check_method(method, names, problems)
        _check_order(node.get("method", ()), problems)
        if node.get("fence") and not names:
            problems.add((*node["_path"], "fence"), "there are options but no agent", 'name it: [fencing] agent = "fence_ipmilan"')


def _value(fencing: Values, name: str) -> Any:
    found = section("fencing")
    key = found.key(name)
    assert key is not None
    return fencing.get(name, default_of(found, key))


def _check_agent(path: Path, agent: str, problems: Problems) -> None:
    if agent and "/" in agent and not PurePosixPath(agent).is_absolute():
        problems.add(path, f"{agent!r} is a relative path", "write an absolute path, or a bare name to be found in PATH")


def _check_simple(fencing: Values, problems: Problems) -> None:
    agent = _value(fencing, "agent")
    _check_agent(("fencing", "agent"), agent, problems)
    if not agent and fencing.get("options"):
        problems.add(("fencing", "options"), "there are options but no agent", 'name the agent, for example agent = "fence_ipmilan"')
    action = fencing.get("options", {}).get("action", "off").lower()
    if action not in ("off", "reboot"):
        problems.add(("fencing", "options", "action"), f"{action!r} fences nobody", "use off (the default) or reboot")
    retry, longest = _value(fencing, "retry_ms"), _value(fencing, "retry_max_ms")
    if longest < retry:
        problems.add(("fencing", "retry_max_ms"), f"{longest} is less than retry_ms ({retry})", f"set it to at least {retry}")


def _check_devices(fencing: Values, devices: Sequence[Values], problems: Problems) -> list[str]:
    """The names that methods may use."""
    names: dict[str, int] = {}
    for device in devices:
        path: Path = device["_path"]
        name = device.get("name")
        _check_agent((*path, "agent"), device.get("agent", ""), problems)
        if "action" in device.get("options", {}):
            problems.add((*path, "options", "action"), "is no option of the device", 'write action = "off" or "reboot" beside options')
        if name == SELF:
            problems.add((*path, "name"), f"{SELF!r} means the node's own lease", "give the device another name")
        elif name in names:
            problems.add((*path, "name"), f"{name} is also the device in line {names[name]}", "give every device its own name")
        elif name is not None:
            names[name] = problems.line(path)
    simple = _value(fencing, "agent").rpartition("/")[2]
    if simple in names:
        problems.add(("fencing", "agent"), f"{simple} is also the name of the device in line {names[simple]}", "rename that device")
    return [*names, *([simple] if simple else [])]


def _check_method(method: Values, names: Sequence[str], problems: Problems) -> None:
    path: Path = method["_path"]
    devices: Sequence[str] = method.get("devices", ())
    for i, device in enumerate(devices):
        if device in devices[:i]:
            problems.add((*path, "devices", i), f"{device} stands there twice", "name it once")
        elif device == SELF:
            if len(devices) > 1:
                problems.add((*path, "devices", i), "the node's own lease is a method by itself", f'write devices = ["{SELF}"]')
        elif device not in names:
            close = difflib.get_close_matches(device, names, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else "known are " + (", ".join(names) or "none: add a [[fence_device]]")
            problems.add((*path, "devices", i), f"there is no device {device!r}", remedy)
    for name in method.get("options", {}):
        if name and name not in devices:
            problems.add((*path, "options", name), f"{name} is none of this method's devices", f"known are {', '.join(devices) or 'none'}")


def _check_order(methods: Sequence[Values], problems: Problems) -> None:
    for method in methods[:-1]:
        if tuple(method.get("devices", ())) == (SELF,):
            problems.add((*method["_path"], "devices"), "the wait for a lease runs beside the others and never fails",
                         "let it be the last method")
