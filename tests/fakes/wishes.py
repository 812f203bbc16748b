# SPDX-License-Identifier: GPL-2.0-only
"""What administrators asked of a fake vcsd."""

from __future__ import annotations

from typing import Any

from vcs.errors import VcsError


class Wishes:
    """Part of a fake vcs.control.Backend: notes what is asked, or refuses it."""

    def __init__(self) -> None:
        self.wishes: list[tuple[object, ...]] = []
        self.refuse = ""
        "Why everything is refused."
        self.methods: list[Any] = []
        self.devices: list[Any] = []
        self.history: list[Any] = []
        self.timelines: list[Any] = []

    def _wish(self, *wish: object) -> None:
        if self.refuse:
            raise VcsError(self.refuse, "do something about it")
        self.wishes.append(wish)

    async def expect_votes(self, votes: int) -> None:
        self._wish("expect_votes", votes)

    async def maintenance(self, for_ms: int, reason: str) -> None:
        self._wish("maintenance", for_ms, reason)

    async def shut_down(self) -> None:
        self._wish("shut_down")

    # --- fencing -------------------------------------------------------------------------------------------------------
    async def fence_node(self, nodeid: int, action: str) -> None:
        self._wish("fence_node", nodeid, action)

    def fence_methods(self) -> list[Any]:
        return self.methods

    def fence_devices(self) -> list[Any]:
        return self.devices

    async def fence_check(self) -> list[Any]:
        self._wish("fence_check")
        return self.devices

    def fence_history(self) -> list[Any]:
        return self.history

    def failovers(self) -> list[Any]:
        return self.timelines
