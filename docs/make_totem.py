# SPDX-License-Identifier: GPL-2.0-only
"""Writes the diagram and the table of docs/totem.md from membership/totem/states.py: ``python docs/make_totem.py``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from membership.totem import states


def main() -> None:
    path = Path(__file__).with_name("totem.md")
    text = path.read_text()
    text = re.sub(r"(?s)```mermaid\n.*?```", lambda _: f"```mermaid\n{states.mermaid()}\n```", text)
    text = re.sub(r"(?m)(^\| state \| event .*\n)(^\|.*\n)+", lambda _: states.table_text() + "\n", text)
    path.write_text(text)


if __name__ == "__main__":
    main()
