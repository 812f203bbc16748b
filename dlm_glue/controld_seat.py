# SPDX-License-Identifier: GPL-2.0-only
"""What the server of dlm_controld's sockets may see and do of dlm_glue."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from dlm_glue.lockspace import Paths, Tree
from dlm_glue.state import State
from vcs.config.model import ClusterConfig

logger = logging.getLogger("dlm_glue")


def no_plocks(_lockspace: str) -> list[str]:
    """Of a dlm_glue that has no POSIX locks."""
    return []


@dataclass(slots=True)
class Seat:
    """Implements controld_server.Subject."""

    current: Callable[[], State]
    tree: Tree
    paths: Paths
    load: Callable[[], ClusterConfig]
    "Reads cluster.toml again; raises ConfigError."
    plocks: Callable[[str], list[str]] = no_plocks
    plocks_wanted: Callable[[], frozenset[str]] = frozenset
    plocks_log: Callable[[], str] = str

    @property
    def state(self) -> State:
        return self.current()

    def plock_lines(self, lockspace: str) -> list[str]:
        return self.plocks(lockspace)

    def plock_log(self) -> str:
        return self.plocks_log()

    def need_plocks(self) -> frozenset[str]:
        return self.plocks_wanted()

    def apply_option(self, name: str, value: int) -> None:
        if name == "log_debug":
            path = f"{self.paths.cluster}/log_debug"
            if self.tree.read(path) != str(value):
                self.tree.write(path, str(value).encode())
        else:
            logger.setLevel(logging.DEBUG if value else logging.NOTSET)

    def configured(self) -> dict[str, int | str]:
        config = self.load()
        found: dict[str, int | str] = {}
        if config.dlm.protocol != "tcp":
            found["protocol"] = config.dlm.protocol
        if config.dlm.port != 21064:
            found["port"] = config.dlm.port
        if config.dlm.log_debug:
            found["log_debug"] = 1
        return found
