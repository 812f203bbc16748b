# SPDX-License-Identifier: GPL-2.0-only
"""`vcs quorum`: the votes, and the one thing about them that can change at run time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from vcs.cli.common import Asked, common
from vcs.cli.render import clean, emit_facts, emit_json, node_names


@click.group("quorum", invoke_without_command=True)
@common
@click.pass_context
def quorum_(context: click.Context, asked: Asked) -> None:
    """Votes, who is missing, and why there is no quorum."""
    if context.invoked_subcommand is not None:
        return
    with asked.client() as client:
        status, nodes, waits = client.status(), client.nodes(), client.why()
    quorum = status.get("quorum") or {}
    names = node_names(nodes)
    reasons = [] if quorum.get("quorate") else [str(w.get("what")) for w in waits if str(w.get("subject", "")).startswith("cluster ")]
    if asked.as_json:
        emit_json("quorum", {**quorum, "why_not": reasons})
        return
    emit_facts(_facts(quorum, names, nodes))
    for text in reasons:
        click.echo(clean(f"not quorate: {text}"))


def _facts(quorum: Mapping[str, Any], names: Mapping[int, str], nodes: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    def called(ids: list[int]) -> str:
        return ", ".join(names.get(n, f"node {n}") for n in ids)

    yield "quorate", "yes" if quorum.get("quorate") else "NO"
    yield "votes", f"{quorum.get('votes')} of {quorum.get('expected')} are here, {quorum.get('needed')} are needed"
    yield "voters", called(quorum.get("voters") or [])
    yield "missing", called(quorum.get("missing") or [])
    yield "no vote", called([n["nodeid"] for n in nodes if n["nodeid"] not in (quorum.get("voters") or [])])
    yield "flags", ", ".join(quorum.get("flags") or [])
    yield "tie-breaker", called([quorum["tie_breaker"]]) if quorum.get("tie_breaker") else ""
    yield "witness", _witness(quorum["witness"]) if quorum.get("witness") else ""
    if quorum and not quorum.get("exclusive"):
        yield "exclusive", "no: after a split both nodes are quorate, and the fence decides"


def _witness(held: Mapping[str, Any]) -> str:
    where = f"{held['address']} port {held['port']}"
    if held.get("granted"):
        said = f"lets this half go on, for {held['left_ms']} ms from now unless it says so again"
    elif not held.get("answers"):
        said = "DOES NOT ANSWER"
    elif held.get("refuses"):
        said = f"REFUSES: {held.get('verdict')}"
    elif held.get("needed"):
        said = f"has let the other half go on (ring {held['holder']})" if held.get("verdict") == "held" else "is asked"
    else:
        said = "answers, is not needed now"
    return f"{where}: {said}"


@quorum_.command("expected")
@click.argument("votes", type=click.IntRange(1, 65535))
@common
def expected(asked: Asked, votes: int) -> None:
    """Expect VOTES votes from now on, on all nodes.

    Fewer than there are voters: the votes of missing nodes go that are known to be dead (fenced, or `vcs fence ack`), nobody else's. They
    have them again when they are back.
    """
    with asked.client() as client:
        client.expect_votes(votes)
    if asked.as_json:
        emit_json("expected", votes)
    else:
        click.echo(f"ordered: {votes} votes are expected")
