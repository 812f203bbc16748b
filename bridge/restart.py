# SPDX-License-Identifier: GPL-2.0-only
"""The announcement of a planned restart, seen from the caller: told, or nobody to tell (SAFETY S16)."""

from __future__ import annotations

import asyncio

from bridge.coordinator.api import Notice, PlannedRestart
from bridge.driver import Driver

TIMEOUT_S = 2.0
"So long an announcement may take to be ordered."


class Announcement:
    """At most one is under way."""

    def __init__(self) -> None:
        self._told: asyncio.Future[bool] | None = None

    async def tell(self, driver: Driver | None, planned_ms: int) -> bool:
        """True: every member has it, and nothing is done here any more. False: it was refused, or nobody ordered it in time."""
        if driver is None:
            return False
        self._told = asyncio.get_running_loop().create_future()
        driver.feed(PlannedRestart(planned_ms))
        try:
            return await asyncio.wait_for(asyncio.shield(self._told), TIMEOUT_S)
        except TimeoutError:
            return False

    def ready(self) -> None:
        self._set(True)

    def heard(self, notice: Notice) -> None:
        if notice.event == "restart_refused":
            self._set(False)

    def _set(self, told: bool) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(told)
