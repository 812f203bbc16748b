# SPDX-License-Identifier: GPL-2.0-only
"""Rules of votes and quorum in cluster.toml, and what fencing and the lease must be for them (SAFETY S12)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from vcs.config.keyfile import KEYLESS_ENGINES
from vcs.config.model import SELF
from vcs.config.problems import Problems
from vcs.config.schema import default_of, section

Values = Mapping[str, Any]


def check(values: Mapping[str, Values], nodes: list[dict[str, Any]], problems: Problems) -> None:
    quorum = values["quorum"]
    _check_votes(quorum, nodes, problems)
    _check_two_node(values, nodes, problems)
    _check_last_man(quorum, problems)
    _check_tie_breaker(quorum, nodes, problems)
    if "witness" in quorum:
        _check_witness(values, nodes, problems)


def _value(values: Values, name: str, sec: str = "quorum") -> Any:
    """What holds: the value given or the default."""
    found = section(sec)
    key = found.key(name)
    assert key is not None
    return values.get(name, default_of(found, key))


def _votes(nodes: list[dict[str, Any]]) -> list[int]:
    default = default_of(section("node"), next(k for k in section("node").keys if k.name == "votes"))
    return [n.get("votes", default) for n in nodes]


def _check_votes(quorum: Values, nodes: list[dict[str, Any]], problems: Problems) -> None:
    total = sum(_votes(nodes))
    if nodes and not total:
        problems.add((*nodes[0]["_path"], "votes"), "no node has a vote", "give at least one node votes = 1")
        return
    expected = _value(quorum, "expected_votes")
    if not expected or not nodes:
        return
    path = ("quorum", "expected_votes")
    if expected < total:
        problems.add(path, f"{expected} is less than the {total} votes of all nodes, so two halves could both be quorate",
                     f"leave it out, or set at least {total}")
    elif expected // 2 + 1 > total:
        problems.add(path, f"{expected} asks for {expected // 2 + 1} votes to be quorate, and all nodes together have {total}",
                     f"leave it out, or set at most {2 * total - 1}")


def _check_two_node(values: Mapping[str, Values], nodes: list[dict[str, Any]], problems: Problems) -> None:
    """Both halves are quorate, so only a fence that kills can decide, and it must not hit both."""
    quorum, path = values["quorum"], ("quorum", "two_node")
    ids = [n["id"] for n in nodes if "id" in n]
    waits = _value(quorum, "fence_delay_node")
    if waits and waits not in ids:
        problems.add(("quorum", "fence_delay_node"), f"there is no node {waits}", "write the id of one of the two nodes, or leave it out")
    if not _value(quorum, "two_node"):
        return
    if nodes and _votes(nodes) != [1, 1]:
        problems.add(path, "is for two nodes with one vote each", "remove it: more nodes, or uneven votes, need no exception")
    if _value(quorum, "expected_votes") not in (0, 2):
        problems.add(("quorum", "expected_votes"), "does not fit two_node, which expects 2", "leave it out")
    if not _value(quorum, "wait_for_all"):
        problems.add(("quorum", "wait_for_all"), "is implied by two_node: a node that boots alone would fence the one that runs",
                     "remove the line")
    if _value(quorum, "last_man_standing"):
        problems.add(("quorum", "last_man_standing"), "has nothing to do with two_node set: one of two is quorate anyway",
                     "keep one of the two")
    if not _value(quorum, "auto_tie_breaker"):
        _check_exclusive(values, nodes, problems)


def _check_exclusive(values: Mapping[str, Values], nodes: list[dict[str, Any]], problems: Problems) -> None:
    """With two_node and no tie-breaker quorum is not exclusive: no side may count on what the other has lost."""
    used = {device for n in nodes for m in n.get("method", ()) for device in m.get("devices", ())}
    remedy = "name a fence agent, or set auto_tie_breaker = true, with which one of the two nodes alone goes on"
    if values["lease"].get("self_fencing") == "on" or SELF in used:
        where = ("quorum", "two_node") if SELF in used else ("lease", "self_fencing")
        problems.add(where, "self-fencing proves nothing with two_node: both halves stay quorate and keep their lease", remedy)
    elif not used and not values["fencing"].get("agent"):
        problems.add(("quorum", "two_node"), "needs a fence that decides which half goes on, and there is none", remedy)


def _check_last_man(quorum: Values, problems: Problems) -> None:
    if _value(quorum, "last_man_standing") and not _value(quorum, "wait_for_all") and not _value(quorum, "two_node"):
        problems.add(("quorum", "wait_for_all"), "last_man_standing needs it: nodes whose vote was withdrawn while they were down do not "
                     "know it, and could start a second cluster", "remove the line")


def _check_tie_breaker(quorum: Values, nodes: list[dict[str, Any]], problems: Problems) -> None:
    wanted = _value(quorum, "auto_tie_breaker_node")
    path = ("quorum", "auto_tie_breaker_node")
    if "auto_tie_breaker_node" in quorum and not _value(quorum, "auto_tie_breaker"):
        problems.add(path, "says nothing without auto_tie_breaker", "set auto_tie_breaker = true, or remove the line")
    if wanted in ("lowest", "highest"):
        return
    ids = {n["id"] for n in nodes if "id" in n}
    for text in wanted.split(" "):
        if int(text) not in ids:
            problems.add(path, f"there is no node {text}", "known are " + ", ".join(map(str, sorted(ids))))


def _check_witness(values: Mapping[str, Values], nodes: list[dict[str, Any]], problems: Problems) -> None:
    """A second tie-breaker, or a quorum that needs none, would let both halves go on."""
    quorum, path = values["quorum"], ("quorum", "witness")
    for other, why in (
        ("two_node", "with it one of two is quorate without asking anybody"), ("auto_tie_breaker", "a fixed node already breaks the tie"),
        ("last_man_standing", "votes are withdrawn by a majority of nodes only, and here half of them may go on"),
    ):
        if _value(quorum, other):
            problems.add(("quorum", other), f"does not fit a witness: {why}", "keep one of the two")
    if len(nodes) == 1:
        problems.add(path, "there is one node, which needs nobody to decide", "remove the section")
    if _value(values["cluster"], "engine", "cluster") in KEYLESS_ENGINES:
        problems.add(path, "the engine needs no key, and a witness believes nobody without one", "use an engine with a key, or remove it")
    witness = quorum["witness"]
    if "address" not in witness:
        return
    try:
        address = ipaddress.ip_address(witness["address"])
    except ValueError:
        problems.add((*path, "address"), f"{witness['address']!r} is no IPv4 or IPv6 address",
                     "write the address itself: host names are not looked up")
        return
    if address.is_unspecified or address.is_multicast:
        problems.add((*path, "address"), f"{address} is not the address of one machine", "write the address that all nodes reach it at")
    for node in nodes:
        if str(address) in node["addresses"]:
            label = node.get("name", node.get("id", "?"))
            problems.add((*path, "address"), f"{address} is node {label}'s: it would fall silent together with what it must decide about",
                         "run the witness on a machine outside of the cluster")
