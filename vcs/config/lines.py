# SPDX-License-Identifier: GPL-2.0-only
"""Where in a TOML text each key stands.

tomllib gives values without lines, and an error without a line is half an error. This scanner walks a text *that tomllib has already
accepted*, so it need not validate: it only has to know where keys begin and where values end.
"""

from __future__ import annotations

import tomllib

Path = tuple[str | int, ...]
"A key from the root: names, and indices into arrays."

_BARE_END = set(" \t\r\n=.]}[{,#\"'")


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.lines: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}
        "Arrays of tables: path -> how many elements were opened so far."

    def line(self) -> int:
        return self.text.count("\n", 0, self.pos) + 1

    def peek(self, n: int = 1) -> str:
        return self.text[self.pos : self.pos + n]

    def skip(self, newlines: bool = True) -> None:
        """Skip blanks, comments and (unless told otherwise) line ends."""
        blanks = " \t\r\n" if newlines else " \t"
        while self.pos < len(self.text):
            if self.text[self.pos] in blanks:
                self.pos += 1
            elif self.text[self.pos] == "#":
                end = self.text.find("\n", self.pos)
                self.pos = len(self.text) if end < 0 else end
            else:
                return

    def string(self) -> str:
        """A string in any of the four notations; returns its source text."""
        begin = self.pos
        quote = self.peek()
        if self.peek(3) == quote * 3:
            quote *= 3
        self.pos += len(quote)
        while self.peek(len(quote)) != quote:
            self.pos += 2 if quote[0] == '"' and self.peek() == "\\" else 1
            if self.pos > len(self.text):
                raise ValueError("unterminated string")
        self.pos += len(quote)
        if len(quote) == 3:  # up to two quotes may stand right before the closing ones
            while self.peek() == quote[0]:
                self.pos += 1
        return self.text[begin : self.pos]

    def key(self) -> list[str]:
        """A key, dotted or not."""
        parts: list[str] = []
        while True:
            self.skip(newlines=False)
            if self.peek() in ('"', "'"):
                parts.append(tomllib.loads(f"v = {self.string()}")["v"])
            else:
                begin = self.pos
                while self.pos < len(self.text) and self.text[self.pos] not in _BARE_END:
                    self.pos += 1
                if self.pos == begin:
                    raise ValueError("no key where one was expected")
                parts.append(self.text[begin : self.pos])
            self.skip(newlines=False)
            if self.peek() != ".":
                return parts
            self.pos += 1

    def value(self, path: Path) -> None:
        self.skip(newlines=False)
        first = self.peek()
        if first in ('"', "'"):
            self.string()
        elif first == "[":
            self.array(path)
        elif first == "{":
            self.inline_table(path)
        else:
            while self.pos < len(self.text) and self.text[self.pos] not in ",]}#\n":
                self.pos += 1

    def array(self, path: Path) -> None:
        self.pos += 1
        index = 0
        while True:
            self.skip()
            if self.peek() == "]":
                self.pos += 1
                return
            self.lines[(*path, index)] = self.line()
            self.value((*path, index))
            index += 1
            self.skip()
            if self.peek() == ",":
                self.pos += 1

    def inline_table(self, path: Path) -> None:
        self.pos += 1
        while True:
            self.skip()
            if self.peek() == "}":
                self.pos += 1
                return
            self.pair(path)
            self.skip()
            if self.peek() == ",":
                self.pos += 1

    def pair(self, table: Path) -> None:
        line = self.line()
        path = table
        for part in self.key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.pos += 1  # the equals sign
        self.value(path)

    def header(self) -> Path:
        """``[table]`` or ``[[array of tables]]``; returns the path of the table that it opens."""
        line = self.line()
        array = self.peek(2) == "[["
        self.pos += 2 if array else 1
        path: Path = ()
        parts = self.key()
        for i, part in enumerate(parts):
            path = (*path, part)
            self.lines.setdefault(path, line)
            if array and i == len(parts) - 1:
                self.tables[path] = self.tables.get(path, 0) + 1
            if path in self.tables:
                path = (*path, self.tables[path] - 1)
                self.lines.setdefault(path, line)
        self.pos += 2 if array else 1
        return path

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while True:
            self.skip()
            if self.pos >= len(self.text):
                return self.lines
            if self.peek() == "[":
                table = self.header()
            else:
                self.pair(table)


def key_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of every key, table and array element of ``text``, which tomllib must have accepted."""
    return _Scanner(text).run()
