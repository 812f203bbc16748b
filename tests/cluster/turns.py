# SPDX-License-Identifier: GPL-2.0-only
"""What takes turns, so that `make test` stays short: each commit has a number, and it decides which of several is done there. Many
commits in a row see all, and everybody who tests a commit sees the same. SEED=number asks for another commit's choice."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def seed() -> int:
    said = os.environ.get("SEED", "")
    if said:
        return int(said)
    got = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return int(got.stdout[:6] or "0", 16)


def left_out(files: Sequence[Path], number: int) -> set[Path]:
    """Of these files all but the one whose turn it is."""
    return {path for turn, path in enumerate(sorted(set(files))) if turn != number % len(set(files))}
