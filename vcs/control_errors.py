# SPDX-License-Identifier: GPL-2.0-only
"""How the control socket refuses: one error for all interfaces, made from a VcsError."""
# No ``from __future__ import annotations``: the library makes the interface description from the annotations themselves.

import contextlib
from typing import Any

from asyncvarlink import TypedVarlinkErrorReply

from vcs.client import INTERFACE
from vcs.errors import VcsError


class Failed(TypedVarlinkErrorReply, interface=INTERFACE):
    """The call was understood and refused: what is wrong, what to do about it (may be empty), how a command should exit."""

    class Parameters:
        message: str
        remedy: str
        exit_code: int


def failed(error: VcsError) -> Failed:
    return Failed(message=error.message, remedy=error.remedy, exit_code=error.exit_code)


@contextlib.contextmanager
def told() -> Any:
    """A VcsError inside becomes the reply; anything else is our bug: the library logs it and answers with an internal error."""
    try:
        yield
    except VcsError as error:
        raise failed(error) from error
