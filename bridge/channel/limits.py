# SPDX-License-Identifier: GPL-2.0-only
"""Every limit of the batch channels, by name. Nothing that a program or a peer can grow is without one of these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, unless the name says otherwise."""

    channels: int = 64
    "Channels open at one node."
    window: int = 1 << 20
    "Of one channel between its program's send and the delivery here: beyond that the program has to wait."
    node_window: int = 4 << 20
    "The same of all channels together: what the engine's queue (16 MiB) keeps free is for the coordinator."
    socket: int = 1 << 20
    "Asked of the kernel for what a program has not read yet; it may grant less."
    behind: int = 1 << 20
    "A channel with more than this waiting for its program is behind: the members stop sending to the group."
    caught_up: int = 256 << 10
    backlog: int = 16 << 20
    "Most that may wait for one program; beyond that it is cut off."
    node_backlog: int = 64 << 20
    "The same of all together; beyond that the longest one is cut off."
    slow_s: float = 10.0
    "A program that is behind and takes nothing for so long is cut off."
    linger_s: float = 5.0
    "How long a closed channel waits for its program to read why."


SWEEP_S = 1.0
"How often channels are looked after: slow programs, and dead ones that are not being read from."
READS = 16
"Packets read from one program in one turn of the loop."
RETRY_S = 0.01
"The engine's queue is full: tried again so much later, if nothing is delivered before."
HELLOS_MAX = 16
"Connections that have not said their group yet."
