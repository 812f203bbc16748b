# SPDX-License-Identifier: GPL-2.0-only
"""Rules between the keys of cluster.toml. Each says what is wrong and what to do instead.

Every rule works on what could be read: a key that was wrong by itself has been reported and is absent here, so its default stands in.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Mapping
from typing import Any

from vcs.config import rules_quorum
from vcs.config.problems import Problems
from vcs.config.schema import default_of, section

Values = Mapping[str, Any]
_ORDINALS = ("first", "second", "third")
OWN_ENGINES = ("totem", "static")
LEASE_ROTATIONS = 5
"The ring rotates at least this often within a lease, on hold too (SAFETY S9)."
LEASE_REFORMATIONS = 5
"A lease outlasts so many of the worst re-formations (SAFETY S13)."


def check(values: Mapping[str, Values], nodes: list[dict[str, Any]], problems: Problems) -> None:
    _check_nodes(nodes, problems)
    _check_addresses(nodes, problems)
    rules_quorum.check(values, nodes, problems)
    _check_engine(values["cluster"], problems)
    _check_totem(values, problems)
    _check_multicast(values["totem"], nodes, problems)
    _check_metrics(values["metrics"], problems)


def _value(values: Values, sec: str, name: str) -> Any:
    """What holds: the value given or the default."""
    found = section(sec)
    key = found.key(name)
    assert key is not None
    return values.get(name, default_of(found, key))


def _check_nodes(nodes: list[dict[str, Any]], problems: Problems) -> None:
    if not nodes:
        problems.add(("node",), "there is no node", "add one [[node]] with id, name and address for every machine")
    for key in ("id", "name"):
        seen: dict[object, int] = {}
        for node in nodes:
            value = node.get(key)
            if value is None:
                continue
            if value in seen:
                problems.add((*node["_path"], key), f"{value} is also that of the node in line {seen[value]}",
                             f"give every node its own {key}")
            else:
                seen[value] = problems.line(node["_path"])


def _check_addresses(nodes: list[dict[str, Any]], problems: Problems) -> None:
    """Folds ``address`` into ``addresses`` and checks every literal."""
    seen: dict[str, str] = {}
    families: dict[int, tuple[int, str]] = {}
    counted_at: tuple[int, str] | None = None
    for node in nodes:
        path, label = node["_path"], f"node {node.get('name', node.get('id', '?'))}"
        if "address" in node and "addresses" in node:
            problems.add((*path, "address"), "stands beside addresses", "keep one of the two")
        key = "addresses" if "addresses" in node else "address"
        if key not in node:
            # An address of a wrong type was reported already, at a line of its own.
            if (*path, "address") not in problems.lines and (*path, "addresses") not in problems.lines:
                problems.add((*path, "address"), "missing", 'every node needs one, for example address = "192.0.2.1"')
            node["addresses"] = ()
            continue
        texts = node["addresses"] if key == "addresses" else (node["address"],)
        count, counted = counted_at = counted_at or (len(texts), label)
        good: list[str] = []
        for i, text in enumerate(texts):
            where = (*path, key, i) if key == "addresses" else (*path, key)
            parsed = _address(where, text, problems)
            if parsed is None:
                continue
            if str(parsed) in seen:
                problems.add(where, f"{text} is also an address of {seen[str(parsed)]}", "every address belongs to one node, once")
            seen[str(parsed)] = label
            first = families.setdefault(i, (parsed.version, label))
            if first[0] != parsed.version:
                problems.add(where, f"is IPv{parsed.version}, but the {_ORDINALS[i]} address of {first[1]} is not",
                             "addresses in the same place of the lists are one network, so they must be of one family")
            good.append(str(parsed))
        node["addresses"] = tuple(good)
        if len(texts) != count:
            problems.add((*path, key), f"has {len(texts)} of them, but {counted} has {count}",
                         "give every node one address on each network, the networks in the same order")


def _address(where: tuple[str | int, ...], text: str, problems: Problems) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        problems.add(where, f"{text!r} is no IPv4 or IPv6 address", "write the address itself: host names are not looked up")
        return None
    if address.is_unspecified or address.is_multicast or text == "255.255.255.255":
        problems.add(where, f"{text} is not the address of one machine", "write the address that the other nodes reach it at")
        return None
    if address.version == 6 and address.is_link_local and "%" not in text:
        problems.add(where, f"{text} is link-local without an interface", f"write {text}%INTERFACE, or a global address")
        return None
    return address


def _check_engine(cluster: Values, problems: Problems) -> None:
    engine = _value(cluster, "cluster", "engine")
    if engine in OWN_ENGINES:
        return
    from importlib.metadata import entry_points  # slow to import, and rarely needed

    known = sorted({*OWN_ENGINES, *(e.name for e in entry_points(group="vcs.engines"))})
    if engine not in known:
        close = difflib.get_close_matches(engine, known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "installed are " + ", ".join(known)
        problems.add(("cluster", "engine"), f"{engine!r} is not installed", remedy)


def _check_totem(values: Mapping[str, Values], problems: Problems) -> None:
    totem = {key.name: _value(values["totem"], "totem", key.name) for key in section("totem").keys}
    lease = _value(values["lease"], "lease", "lease_ms")
    token, hold = totem["token_ms"], totem["hold_ms"]
    if token < 5 * hold:
        problems.add(("totem", "token_ms"), f"{token} is less than five times hold_ms ({hold}), so an idle ring would look dead",
                     f"set token_ms to at least {5 * hold}, or hold_ms to at most {token // 5}")
    if hold * LEASE_ROTATIONS > lease:
        problems.add(("totem", "hold_ms"), f"{hold} is more than a fifth of lease_ms ({lease}), so an idle ring would lose its lease",
                     f"set hold_ms to at most {lease // LEASE_ROTATIONS}")
    if totem["token_retransmit_ms"] * 2 > token:
        problems.add(("totem", "token_retransmit_ms"), f"{totem['token_retransmit_ms']} leaves no second try within token_ms ({token})",
                     f"set it to at most {token // 2}")
    if totem["join_ms"] * 2 > totem["consensus_ms"]:
        problems.add(("totem", "join_ms"), f"{totem['join_ms']} leaves no second try within consensus_ms ({totem['consensus_ms']})",
                     f"set it to at most {totem['consensus_ms'] // 2}")
    detect = totem["detect_ms"]
    if detect * 2 > token:
        problems.add(("totem", "detect_ms"), f"{detect} is more than half of token_ms ({token}), so the loss of a token would come first",
                     f"set it to at most {token // 2}")
    if detect * 7 > totem["consensus_ms"] * 5:
        problems.add(("totem", "detect_ms"), f"{detect} and the time to confirm do not fit into consensus_ms ({totem['consensus_ms']})",
                     f"set it to at most {totem['consensus_ms'] * 5 // 7}")
    worst = token + totem["consensus_ms"]
    if lease < LEASE_REFORMATIONS * worst:
        problems.add(("lease", "lease_ms"), f"{lease} is less than five re-formations (token_ms + consensus_ms = {worst}), "
                     "so one lost token could end in a reset", f"set lease_ms to at least {LEASE_REFORMATIONS * worst}")


def _check_multicast(totem: Values, nodes: list[dict[str, Any]], problems: Problems) -> None:
    """One group per link, of the link's family."""
    groups = totem.get("multicast", ())
    links = next((n["addresses"] for n in nodes if n["addresses"]), ())
    if groups and links and len(groups) != len(links):
        problems.add(("totem", "multicast"), f"has {len(groups)} groups, but every node has {len(links)} addresses",
                     "give one group for each address, in the same order")
        return
    for i, text in enumerate(groups):
        where = ("totem", "multicast", i)
        try:
            group = ipaddress.ip_address(text)
        except ValueError:
            problems.add(where, f"{text!r} is no address", 'write a multicast group, for example "239.192.54.5"')
            continue
        if not group.is_multicast:
            problems.add(where, f"{text} is no multicast group", 'write one, for example "239.192.54.5" or "ff15::5405"')
        elif links and group.version != ipaddress.ip_address(links[i]).version:
            problems.add(where, f"is IPv{group.version}, but the {_ORDINALS[i]} addresses of the nodes are not",
                         "give a group of their family")


def endpoint(listen: str) -> tuple[str, int]:
    """Address and port of ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``; the address is a literal. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("no port")
    address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (ipaddress.ip_address(address).version == 6) != (address != host):
        raise ValueError("an IPv6 address stands in brackets, an IPv4 address does not")
    return address, int(port)


def _check_metrics(metrics: Values, problems: Problems) -> None:
    listen = metrics.get("listen")
    if listen:
        try:
            endpoint(listen)
        except ValueError:
            problems.add(("metrics", "listen"), f"{listen!r} is no address with a port", 'write "127.0.0.1:9464", or "[::1]:9464"')
