# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong in the lab. A failed expectation of a test is an AssertionError; these say that the lab or a guest failed."""


class LabError(RuntimeError):
    """The lab itself failed: no image, no boot, QEMU refused."""


class LabTimeout(LabError, TimeoutError):
    """Something did not happen in time; the message says what was waited for."""


class ChannelClosed(LabError, ConnectionError):
    """The machine is off, or went off during a request."""


class CommandFailed(LabError):
    """A command in a guest did not exit 0 though `check` was asked for."""


class KernelSplat(LabError):
    """A guest's kernel reported a BUG, WARNING, lockdep, KASAN or hung task."""
