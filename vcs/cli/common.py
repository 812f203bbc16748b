# SPDX-License-Identifier: GPL-2.0-only
"""What the verbs share: their options, and where their answers come from (vcsd, or the kernel when vcsd does not run)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from vcs.client import RUN_DIR, Client, NotAllowed, NotRunning
from vcs.errors import VcsError

if TYPE_CHECKING:
    from vcs.report import GroupReport, NodeReport, StatusReport, WhyReport
    from vcs.sysfs import Sysfs

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

NOT_RUNNING = "vcsd is not running: this is what the kernel holds"
NOT_ALLOWED = "vcsd was not asked (only root may): this is what the kernel holds"


@dataclass(frozen=True, slots=True)
class Asked:
    """The common options of a call."""

    as_json: bool
    handle: str
    run_dir: str
    sysfs_root: str
    kernel_root: str

    def client(self) -> Client:
        """A connection to the vcsd of the wanted cluster. Raises DaemonError, or VcsError if it serves another one."""
        client = Client(f"{self.run_dir}/vcs.sock")
        if self.handle:
            served = client.status().get("handle", "")
            if served != self.handle:
                client.close()
                raise VcsError(f"the vcsd of {self.run_dir} serves {served!r}, not {self.handle!r}", "give the other one's --run-dir")
        return client

    def ask(self, of_daemon: Callable[[Client], T], of_kernel: Callable[[Sysfs, str], T]) -> tuple[T, str]:
        """The answer of vcsd, or the kernel's when vcsd does not run (or may not be asked), and a note that says so."""
        try:
            with self.client() as client:
                return of_daemon(client), ""
        except NotRunning:
            note = NOT_RUNNING
        except NotAllowed:
            note = NOT_ALLOWED
        sysfs = self.sysfs()
        return of_kernel(sysfs, sysfs.choose(self.handle)), note

    def sysfs(self) -> Sysfs:
        """What the kernel shows."""
        from vcs.sysfs import ROOT, Sysfs  # not needed while vcsd answers, and with what it needs a sixth of a command's start

        return Sysfs(self.sysfs_root or ROOT)

    def status(self) -> tuple[StatusReport, str]:
        return self.ask(lambda c: cast("StatusReport", c.status()), lambda s, handle: s.status(handle))

    def nodes(self) -> tuple[list[NodeReport], str]:
        return self.ask(lambda c: cast("list[NodeReport]", c.nodes()), lambda s, handle: s.nodes(handle))

    def groups(self) -> tuple[list[GroupReport], str]:
        return self.ask(lambda c: cast("list[GroupReport]", c.groups()), lambda s, handle: s.groups(handle))

    def why(self) -> tuple[list[WhyReport], str]:
        """Also what no daemon would know: what the DLM's users lack on this machine."""
        from vcs.prerequisites import Trees, missing
        from vcs.sysfs import why

        waits, note = self.ask(lambda c: cast("list[WhyReport]", c.why()), lambda s, handle: why(s.status(handle), s.groups(handle)))
        sysfs = self.sysfs()
        if sysfs.handles():  # else the switch is not the kernel's, and there is no DLM to it
            handle = sysfs.choose(self.handle)
            report, held = sysfs.status(handle), [group["name"] for group in sysfs.groups(handle)]
            if report["provider"]["state"] == "attached":
                waits = [*waits, *missing(report["cluster"], held, Trees(f"{self.kernel_root}/dlm", f"{self.kernel_root}/config"))]
        return waits, note


def common(function: F) -> F:
    """Adds the common options; the command gets them as one :class:`Asked`, its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON (an interface: it carries a version).")
    @click.option("--handle", default="", envvar="VCS_HANDLE", help="Cluster, when this kernel holds several.")
    @click.option("--run-dir", default=RUN_DIR, envvar="VCS_RUN_DIR", help="Where vcsd has its socket and event log.  [default: /run/vcs]")
    @click.option("--sysfs", "sysfs_root", default="", envvar="VCS_SYSFS", hidden=True)
    @click.option("--kernel", "kernel_root", default="/sys/kernel", envvar="VCS_KERNEL", hidden=True)
    @functools.wraps(function)
    def wrapped(as_json: bool, handle: str, run_dir: str, sysfs_root: str, kernel_root: str, **others: Any) -> Any:
        return function(Asked(as_json, handle, run_dir, sysfs_root, kernel_root), **others)

    return cast(F, wrapped)
