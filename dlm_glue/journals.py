# SPDX-License-Identifier: GPL-2.0-only
"""The second that GFS2 waits when two survivors want the same dead journal, and how it is spared. Pure.

After a failure every survivor tries to replay the dead node's journal. Who finds its lock taken is told nothing when the other one is done:
it looks again after a second (fs/gfs2/lock_dlm.c, ``LM_RD_GAVEUP ? HZ : 0``), and until then gives no lock to anybody. The work that waits
cannot be called earlier, but what it would do can be done from here, with the two files that GFS2 has for it since gfs_controld:

- ``lock_module/recover`` (a journal's number) makes this kernel try again. It says Failed while the other one still works, and Done when
  it has had the journal's lock itself and found the journal clean: proof from our own kernel, not somebody's word.
- ``lock_module/block`` (0) gives the held back locks free, exactly what the late work does when no dead journal is left.

``block`` is written only when this kernel has said Done of as many journals as members were dropped since its locks were last free, and
only between this lockspace's ``control=1`` and its next ``control=0``: dlm_glue does both, one after the other, so no new failure comes in
between. Whatever does not fit (a clean leaver counted among the dropped, a spectator, a predecessor's beginning) leaves it to the kernel's
second, which comes in any case.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SYSFS = "/sys/fs/gfs2"
RETRY_S = 0.01
TRIES_MAX = 100
"So a second of tries: then the kernel's own comes."
QUIET_S = 5.0


def files(table: str) -> tuple[str, str]:
    """(recover, block) of the file system with that lock table."""
    base = f"{SYSFS}/{table}/lock_module"
    return f"{base}/recover", f"{base}/block"


def own_journal(table: str) -> str:
    """Names this node's own journal. What its mount does with that one is said in the same words, and says nothing of a dead member's."""
    return f"{SYSFS}/{table}/lock_module/jid"


@dataclass(frozen=True, slots=True)
class Watch:
    """One lockspace's dead journals since its locks were last free."""

    dropped: int = 0
    "Members that were dropped since then."
    clean: frozenset[int] = frozenset()
    "Journals of which this kernel has said Done."
    tries: int = 0
    lost: bool = False
    "A race for a journal was lost: without that there is nothing to spare."
    running: bool = False
    "control=1 was written and no control=0 since."

    @property
    def free(self) -> bool:
        """Time to write ``block``."""
        return self.running and self.lost and 0 < self.dropped <= len(self.clean)


def stopped(watch: Watch | None, blocked: str, quiet: bool) -> Watch | None:
    """Before control=0; ``blocked`` is what ``block`` reads, "" when the file system is not mounted. ``quiet``: nothing was said about any
    journal, and none was tried, for QUIET_S; else a late word about an old failure could be taken for one about the next.

    None: nothing can be spared, for nobody knows what is still to be done from before.
    """
    if blocked == "0":
        return Watch() if quiet else None
    return replace(watch, running=False) if watch is not None and blocked == "1" else None


def dropped(watch: Watch, members: int) -> Watch:
    return replace(watch, dropped=watch.dropped + members)


def started(watch: Watch) -> Watch:
    return replace(watch, running=True, tries=0)


def reported(watch: Watch, jid: int, done: bool) -> tuple[Watch, bool]:
    """GFS2 has said what became of a journal. The new watch, and whether to try that journal again in RETRY_S."""
    if not watch.running:
        return watch, False
    if done:
        return replace(watch, clean=watch.clean | {jid}), False
    return replace(watch, lost=True, tries=watch.tries + 1), jid not in watch.clean and watch.tries < TRIES_MAX
