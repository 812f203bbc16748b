# SPDX-License-Identifier: GPL-2.0-only
"""Collects what is wrong with a configuration, so that a person sees all of it in one go."""

from __future__ import annotations

from collections.abc import Mapping

from vcs.config.lines import Path
from vcs.errors import ConfigError


class Problems:
    """Findings by key; a line is looked up where the key stands, or else where the nearest table around it does."""

    def __init__(self, source: str, lines: Mapping[Path, int]) -> None:
        self.source = source
        self.lines = lines
        self._found: list[tuple[int, int, str]] = []

    def add(self, path: Path, what: str, remedy: str = "") -> None:
        line = self.line(path)
        # An index tells nobody anything: the line does.
        name = ".".join(part for part in path if isinstance(part, str))
        text = f"{self.source}:{line}: {name}: {what}" + (f"; {remedy}" if remedy else "")
        self._found.append((line, len(self._found), text))

    def line(self, path: Path) -> int:
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def raise_if_any(self) -> None:
        if self._found:
            raise ConfigError([text for _line, _order, text in sorted(self._found)])
