# SPDX-License-Identifier: GPL-2.0-only
"""In a guest: waits until the view of a cluster has other members; says when that was (CLOCK_BOOTTIME), and how long after the last
beats.

    python3 -m tests.kernel.heartbeat_watch HANDLE        a JSON line when it watches, another one when it saw
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

POLL_S = 0.005


def main(handle: str) -> None:
    members = Path("/sys/kernel/vcs") / handle / "view" / "members"
    beats = Path("/sys/kernel/debug/vcs_heartbeat") / handle
    first = members.read_text()
    print(json.dumps({"members": first.strip()}), flush=True)
    while (now := members.read_text()) == first:
        time.sleep(POLL_S)
    seen_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    said = beats.read_text()
    lines = [dict(re.findall(r"(\w+)=(\d+)", line)) for line in said.splitlines()[1:]]
    after = {line["nodeid"]: (seen_ns - int(line["heard"])) / 1e6 for line in lines}
    print(json.dumps({"members": now.strip(), "heard_ms": after, "seen_ns": seen_ns}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
