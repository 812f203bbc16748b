# SPDX-License-Identifier: GPL-2.0-only
"""Questions to vcsd over its control socket (Varlink), from an event loop. vcsd may be dead: whoever asks has an answer for that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from vcs.client import INTERFACE, REPLY_MAX
from vcs.errors import DaemonError

LIMIT_S = 2.0


async def ask(path: str, method: str, limit_s: float = LIMIT_S, **parameters: object) -> Mapping[str, Any]:
    """The parameters of the reply. Raises DaemonError when vcsd refuses, does not answer in time, or is not there."""
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=REPLY_MAX)
            try:
                writer.write(json.dumps({"method": f"{INTERFACE}.{method}", "parameters": parameters}).encode() + b"\0")
                text = await reader.readuntil(b"\0")
            finally:
                writer.close()
        reply = json.loads(text[:-1])
    except TimeoutError:
        raise DaemonError(f"vcsd has not answered for {limit_s:.0f} s") from None
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise DaemonError(f"vcsd cannot be asked: {error}") from None
    answer = reply.get("parameters", {}) if isinstance(reply, dict) else None
    if not isinstance(answer, dict):
        raise DaemonError(f"{path} does not speak Varlink")
    if reply.get("error"):
        raise DaemonError(str(answer.get("message", reply["error"])))
    return answer
