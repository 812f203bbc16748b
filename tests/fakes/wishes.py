# SPDX-License-Identifier: GPL-2.0-only
"""What administrators asked of a fake vcsd."""

from __future__ import annotations

from vcs.errors import VcsError


class Wishes:
    """Part of a fake vcs.control.Backend: notes what is asked, or refuses it."""

    def __init__(self) -> None:
        self.wishes: list[tuple[object, ...]] = []
        self.refuse = ""
        "Why everything is refused."

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
