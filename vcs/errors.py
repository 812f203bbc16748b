# SPDX-License-Identifier: GPL-2.0-only
"""Errors of the project. Each class carries the exit code of a command that ends with it.

Two kinds of blame: a :class:`RemoteError` is a peer's doing (count, log, survive), an ``AssertionError`` is ours.
"""


class VcsError(Exception):
    """Something went wrong that a person can read about: one line that names the thing, and the remedy if there is one."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class RemoteError(VcsError):
    """What a peer sent cannot be used. Never fatal: counted and dropped."""


class ConfigError(VcsError):
    """The configuration does not say what it must; ``problems`` holds every finding, not only the first."""

    exit_code = 78

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SwitchError(VcsError):
    """The switch refused a command. ``errno`` is positive; ``attribute`` names the attribute that was at fault, if any."""

    exit_code = 69

    def __init__(self, errno: int, message: str, attribute: str = "") -> None:
        super().__init__(message)
        self.errno = errno
        self.attribute = attribute


class DaemonError(VcsError):
    """vcsd cannot be reached, or refused what was asked."""

    exit_code = 75
