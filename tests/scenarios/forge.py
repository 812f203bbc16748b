# SPDX-License-Identifier: GPL-2.0-only
"""A second voice of a node: it has the node's keys and says what the node's own engine would not."""

from __future__ import annotations

from membership.totem import wire
from membership.totem.seal import Sealer
from tests.scenarios.script import Script
from tests.sim.engine_node import CheapSuite

AHEAD = 1 << 40
"The forger's frames are numbered from here: beyond what the honest half of the node uses."


class Forger:
    def __init__(self, script: Script, node: int) -> None:
        self.script = script
        self.node = node
        self.sealer = Sealer("sim", script.hosts[node].processor, CheapSuite())
        self.sealer._counter = AHEAD
        # What a forger says was sent by nobody, and breaks the rules of order: only safety of the honest is judged, by the script.
        script.trust_no_more()

    def send(self, message: wire.Body, *to: int) -> None:
        others = to or tuple(n for n in self.script.ids if n != self.node)
        self.script.wires.send(self.node, others, self.sealer.seal(wire.encode(message)))


def forge(script: Script, node: int) -> Forger:
    return Forger(script, node)
