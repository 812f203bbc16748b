# SPDX-License-Identifier: GPL-2.0-only
"""Standard fence agents, as their metadata describes them: what they can do, which options they know and which they demand.

The protocol is ClusterLabs' FenceAgentAPI. ``action=metadata`` prints XML; parameters have aliases (``obsoletes`` names the old one, which
is then marked ``deprecated``), so a demand is met by any name of the option. Nothing in the metadata says which values are secret: names
do (:func:`is_secret`).
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from vcs.agent_process import SEARCH, Call, call
from vcs.config.lines import Path, key_lines
from vcs.config.model import ClusterConfig, FenceDevice, FenceMethod, NodeConfig
from vcs.config.problems import Problems
from vcs.errors import VcsError

METADATA_TIMEOUT_S = 15.0
DETAIL_MAX = 400
"Of an agent's output, this much goes into logs (characters, the end of it)."
SECRETS = ("pass", "pwd", "secret", "community", "token", "private", "api_key", "apikey")
"Options with such a name are neither shown nor logged: people paste output into bug reports."
HIDDEN = "(hidden)"
ALWAYS = ("action", "option", "nodename", "agent")
"What every agent is told, or takes, whatever its metadata says."


class FenceAgentError(VcsError):
    """A fence agent cannot be used as configured."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    required: bool = False
    deprecated: bool = False
    obsoletes: str = ""
    choices: tuple[str, ...] = ()
    "Empty: anything."


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the agent says of itself."""

    name: str
    actions: frozenset[str]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    unfences: bool = False
    "Its ``on`` is for a node that joins (``automatic``): it cuts the way to the storage, not the power."

    def names_of(self, parameter: Parameter) -> set[str]:
        """The option and its aliases."""
        found = {parameter.name}
        if parameter.obsoletes:
            found.add(parameter.obsoletes)
        return found | {p.name for p in self.parameters.values() if p.obsoletes == parameter.name}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong in cluster.toml: where, what, and the remedy."""

    path: Path
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        where = ".".join(part for part in self.path if isinstance(part, str))
        return f"{where}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


def is_secret(option: str) -> bool:
    """Does an option of this name hold something that nobody else should read?"""
    return any(s in option.lower() for s in SECRETS)


def without_secrets(text: str, options: Mapping[str, str]) -> str:
    """``text`` as it may be logged: an agent's output may repeat what it was told."""
    for name, value in options.items():
        if is_secret(name) and len(value) > 2:
            text = text.replace(value, HIDDEN)
    return text


def find(agent: str) -> str:
    """Path of the executable that ``agent`` (a path or a name) means. Raises FenceAgentError."""
    where = agent if "/" in agent else (shutil.which(agent, path=SEARCH) or "")
    if not where:
        raise FenceAgentError(
            f"fence agent {agent!r} is not installed (looked in {SEARCH})",
            "install its package (Debian: fence-agents) or give its path",
        )
    if not os.path.isfile(where):
        raise FenceAgentError(f"fence agent {where} does not exist", "correct the name of the agent")
    if not os.access(where, os.X_OK):
        raise FenceAgentError(f"fence agent {where} is not executable", f"chmod +x {where}")
    return os.path.abspath(where)


def read_metadata(path: str) -> Metadata:
    """Ask the agent. Blocks up to 15 s; raises FenceAgentError."""
    remedy = f"try: echo action=metadata | {path}"
    try:
        found = call(path, {"action": "metadata"}, METADATA_TIMEOUT_S)
    except OSError as error:
        raise FenceAgentError(f"fence agent {path}: {error.strerror or error}", remedy) from None
    if found.code != 0:
        raise FenceAgentError(f"fence agent {path}: action=metadata {how(found)}", remedy)
    try:
        return parse_metadata(found.out)
    except ValueError as error:
        raise FenceAgentError(f"fence agent {path}: its metadata cannot be read: {error}", remedy) from None


def how(ended: Call) -> str:
    """How a failed call ended, in words; an agent's last line says most."""
    said = last_line(ended)
    if ended.stopped:
        text = "was called off"
    elif ended.code is None:
        text = "did not end in time and was killed"
    elif ended.code < 0:
        text = f"died of signal {-ended.code}"
    else:
        text = f"ended with exit code {ended.code}"
    return f"{text}: {said}" if said else text


def last_line(ended: Call) -> str:
    """The last thing that the agent said, of its errors if there are any."""
    lines = [line.strip() for line in (ended.err.strip() or ended.out.strip()).splitlines() if line.strip()]
    return " ".join(lines[-1].split())[-DETAIL_MAX:] if lines else ""


def parse_metadata(text: str) -> Metadata:
    """Raises ValueError if ``text`` is no agent's metadata."""
    try:
        root = ElementTree.fromstring(text.strip())
    except ElementTree.ParseError as error:
        raise ValueError(f"not XML: {error}") from None
    if root.tag != "resource-agent":
        raise ValueError(f"root element is <{root.tag}>, not <resource-agent>")
    parameters = {p.name: p for p in map(_parameter, root.iterfind("parameters/parameter")) if p.name}
    actions = [(e.get("name", ""), e.get("automatic") == "1") for e in root.iterfind("actions/action")]
    return Metadata(root.get("name", ""), frozenset(n for n, _ in actions if n), parameters, ("on", True) in actions)


def _parameter(element: ElementTree.Element) -> Parameter:
    options = (o.get("value") for o in element.iterfind("content/option"))
    return Parameter(
        element.get("name", ""), element.get("required") == "1", element.get("deprecated") == "1", element.get("obsoletes") or "",
        tuple(o for o in options if o is not None),
    )


# --- what one call is told ----------------------------------------------------------------------------------------------------


def call_options(device: FenceDevice, method: FenceMethod, node: NodeConfig, metadata: Metadata, action: str) -> dict[str, str]:
    """What the agent is told: the device's options, the node's, the method's on top, then action and node name."""
    merged = given(device, method, node) | {"nodename": node.name, "action": action}
    if not {"plug", "port"} & set(merged):
        # Newer agents call it plug, older ones port; the node's name is the usual plug, as with other cluster managers.
        for name in ("plug", "port"):
            if name in metadata.parameters:
                merged[name] = node.name
                break
    return merged


def given(device: FenceDevice, method: FenceMethod, node: NodeConfig) -> dict[str, str]:
    """What cluster.toml says for this device and this node."""
    return {**device.options, **node.fence, **method.options.get("", {}), **method.options.get(device.name, {})}


# --- checking a configuration against the agents ---------------------------------------------------------------------------------


def findings(config: ClusterConfig, known: Mapping[str, Metadata]) -> list[Finding]:
    """Everything in the fence options that the agents would not take. ``known``: device -> its agent's metadata. Pure."""
    found: list[Finding] = []
    for device in config.devices.values():
        metadata = known.get(device.name)
        if metadata is None:
            continue
        path = _device_path(config, device)
        if device.action not in metadata.actions:
            has = ", ".join(sorted(metadata.actions)) or "none"
            found.append(Finding((*path, "action"), f"{metadata.name} cannot {device.action!r} (its actions: {has})",
                                 "choose another agent, or another action"))
        found += _options((*path, "options"), device.options, metadata)
    for i, node in enumerate(config.nodes):
        found += _node(config, ("node", i), node, known)
    return found


def _device_path(config: ClusterConfig, device: FenceDevice) -> Path:
    index = next((i for i, d in enumerate(config.fence_devices) if d.name == device.name), None)
    return ("fencing",) if index is None else ("fence_device", index)


def _node(config: ClusterConfig, path: Path, node: NodeConfig, known: Mapping[str, Metadata]) -> Iterator[Finding]:
    used: list[Metadata] = []
    for j, method in enumerate(config.fence_methods(node.id)):
        at: Path = (*path, "method", j) if node.methods else path
        for name in method.devices:
            metadata, device = known.get(name), config.devices.get(name)
            if metadata is None or device is None:
                continue
            used.append(metadata)
            yield from _options((*at, "options", name), method.options.get(name, {}), metadata)
            yield from _options((*at, "options"), method.options.get("", {}), metadata)
            told = call_options(device, method, node, metadata, device.action)
            for parameter in _missing(told, metadata):
                yield Finding(at, f"{name}: {metadata.name} demands the option {parameter!r} for node {node.name}",
                              "give it with the device, or with this node")
    if used:
        for option in node.fence:
            if not any(_knows(m, option) for m in used):
                yield _unknown((*path, "fence", option), option, used)


def _missing(told: Mapping[str, str], metadata: Metadata) -> Iterator[str]:
    for parameter in metadata.parameters.values():
        if parameter.required and not parameter.deprecated and not metadata.names_of(parameter) & set(told):
            yield parameter.name


def _knows(metadata: Metadata, option: str) -> bool:
    return option in metadata.parameters or option in ALWAYS


def _options(path: Path, options: Mapping[str, str], metadata: Metadata) -> Iterator[Finding]:
    for option, value in options.items():
        if not _knows(metadata, option):
            yield _unknown((*path, option), option, [metadata])
            continue
        choices = metadata.parameters[option].choices if option in metadata.parameters else ()
        if choices and value not in choices:
            shown = HIDDEN if is_secret(option) else repr(value)
            yield Finding((*path, option), f"{shown} is not among the choices of {metadata.name}", f"one of {', '.join(choices)}")


def _unknown(path: Path, option: str, agents: Iterable[Metadata]) -> Finding:
    agents = list(agents)
    names = {n for m in agents for n, p in m.parameters.items() if not p.deprecated}
    close = difflib.get_close_matches(option, sorted(names), n=1, cutoff=0.5)
    remedy = f"did you mean {close[0]!r}?" if close else f"it knows {', '.join(sorted(names)) or 'none'}"
    return Finding(path, f"{' and '.join(sorted({m.name for m in agents}))} has no option {option!r}", remedy)


def check_agents(config: ClusterConfig, file: str) -> None:
    """Ask all agents of ``config``, which was read from ``file``. Blocks; raises ConfigError with every problem and its line."""
    with open(file, encoding="utf-8") as text:
        problems = Problems(file, key_lines(text.read()))
    known: dict[str, Metadata] = {}
    for device in config.devices.values():
        try:
            known[device.name] = read_metadata(find(device.agent))
        except FenceAgentError as error:
            problems.add((*_device_path(config, device), "agent"), error.message, error.remedy)
    for found in findings(config, known):
        problems.add(found.path, found.what, found.remedy)
    problems.raise_if_any()
