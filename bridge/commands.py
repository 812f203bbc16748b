# SPDX-License-Identifier: GPL-2.0-only
"""Wishes of administrators that go to everybody in the order: asked here, answered when the order has them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from bridge.coordinator.api import Command, Notice
from bridge.coordinator.messages import Body
from bridge.driver import Driver
from vcs.errors import VcsError

TIMEOUT_S = 10.0
"Longer than any ring takes to form."


class Refused(VcsError):
    """The order says no."""

    exit_code = 1


class Commands:
    """Tickets and who waits for them."""

    def __init__(self) -> None:
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def ask(self, driver: Driver | None, body: Body, remedy: str = "") -> None:
        """Returns when ``body`` has been ordered and has changed something. Raises VcsError with the reason otherwise."""
        if driver is None:
            raise VcsError("the bridge does not run", "start vcsd")
        ticket = next(self._tickets)
        done = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        try:
            driver.feed(Command(ticket, body))
            await asyncio.wait_for(done, TIMEOUT_S)
        except TimeoutError:
            raise VcsError(f"nothing was ordered within {TIMEOUT_S:g} s; it may still be", "see `vcs why`") from None
        except Refused as error:
            raise Refused(error.message, remedy) from None
        finally:
            self._waiting.pop(ticket, None)

    def heard(self, notice: Notice) -> None:
        """Every notice of the coordinator comes through here."""
        if notice.event != "command_done":
            return
        fields: dict[str, Any] = notice.fields
        done = self._waiting.get(fields["ticket"])
        if done is None or done.done():
            return
        if fields["ok"]:
            done.set_result(None)
        else:
            done.set_exception(Refused(fields["why"] or "refused"))
