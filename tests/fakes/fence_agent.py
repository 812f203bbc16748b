#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A fence agent that implements the whole FenceAgentAPI, for tests: run as a program, made by :func:`make`.

Its device is a folder: ``on-PLUG`` is there while a plug has power. How it behaves is a folder too: a file ``fail``, ``hang``, ``lie``
(says 0 and does nothing), ``slow`` (holds seconds), ``late`` (its status is that of before, once), ``mute`` (answers one status and
hangs from then on), ``loud`` (repeats its options), or the same followed by ``-PLUG``. Every call is a line of ``calls``: [action,
plug, CLOCK_BOOTTIME in ns, options].
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

FOLDER = Path("@FOLDER@")
OPTIONS = (("ip", True, "ipaddr", ()), ("username", False, "login", ()), ("password", False, "passwd", ()), ("plug", True, "port", ()),
           ("method", False, "", ("onoff", "cycle")))  # fmt: skip
ACTIONS = ("off", "reboot", "status", "monitor", "list", "metadata", "validate-all")


def metadata(name: str, fabric: bool) -> str:
    """As fence-agents' own library prints it: a new name that obsoletes an old one, and the old one, deprecated."""
    rows = ['<parameter name="action" unique="0" required="1"><content type="string" default="reboot"/></parameter>']
    for option, required, old, choices in OPTIONS:
        inside = "".join(f'<option value="{c}"/>' for c in choices)
        kind = "select" if choices else "string"
        obsoletes = f' obsoletes="{old}"' if old else ""
        content = f'<content type="{kind}">{inside}</content>'
        rows.append(f'<parameter name="{option}" required="{int(required)}"{obsoletes}>{content}</parameter>')
        if old:
            rows.append(f'<parameter name="{old}" required="{int(required)}" deprecated="1"><content type="string"/></parameter>')
    actions = '<action name="on" on_target="1" automatic="1"/>' if fabric else '<action name="on" automatic="0"/>'
    actions += "".join(f'<action name="{a}"/>' for a in ACTIONS if not (fabric and a == "reboot"))
    return (f'<?xml version="1.0" ?>\n<resource-agent name="{name}" shortdesc="test"><parameters>{"".join(rows)}</parameters>'
            f"<actions>{actions}</actions></resource-agent>\n")


def told(what: str, plug: str) -> Path | None:
    """The file that asks for this behaviour, if it is there."""
    return next((p for p in (FOLDER / f"{what}-{plug}", FOLDER / what) if p.exists()), None)


def act(action: str, plug: str) -> int:
    power = FOLDER / f"on-{plug}"
    if (slow := told("slow", plug)) is not None:
        time.sleep(float(slow.read_text()))
    if told("hang", plug) is not None:
        time.sleep(3600)
    if told("fail", plug) is not None:
        print("Failed: Unable to connect/login to fencing device\nPlease use '-h' for usage", file=sys.stderr)
        print(f"the outlet {plug} does not answer", file=sys.stderr)
        return 1
    if action == "list":
        print("\n".join(f"{p.name[3:]}," for p in sorted(FOLDER.glob("on-*"))))
    elif action == "status" and (late := told("late", plug)) is not None:
        late.unlink()
        print("Status: ON")
    elif action == "status":
        if (mute := told("mute", plug)) is not None:
            mute.rename(FOLDER / f"hang-{plug}")
        print(f"Status: {'ON' if power.exists() else 'OFF'}")
        return 0 if power.exists() else 2
    elif action in ("off", "reboot") and told("lie", plug) is None:
        power.unlink(missing_ok=True)
    if action in ("on", "reboot"):
        power.touch()
    return 0


def main() -> int:
    options = dict(line.rstrip("\n").split("=", 1) for line in sys.stdin if "=" in line)
    action = options.get("action", "reboot")
    name = Path(sys.argv[0]).name
    if action == "metadata":
        print(metadata(name, (FOLDER / "fabric").exists()), end="")
        return 0
    plug = options.get("plug", options.get("port", ""))
    with (FOLDER / "calls").open("a", encoding="utf-8") as calls:
        calls.write(json.dumps([action, plug, time.clock_gettime_ns(time.CLOCK_BOOTTIME), options]) + "\n")
    if told("loud", plug) is not None:
        print(f"logging in with {options}", file=sys.stderr)
    return act(action, plug)


def make(folder: Path, name: str = "fence_fake", *, fabric: bool = False, plugs: tuple[str, ...] = ("1", "2", "3")) -> Path:
    """An agent of this kind with a device of its own; returns its path. ``folder`` is the device."""
    folder.mkdir(parents=True, exist_ok=True)
    if fabric:
        (folder / "fabric").touch()
    for plug in plugs:
        (folder / f"on-{plug}").touch()
    text = Path(__file__).read_text(encoding="utf-8").replace("#!/usr/bin/env python3", f"#!{sys.executable} -IS", 1)
    agent = folder / name
    agent.write_text(text.replace("@FOLDER@", str(folder), 1), encoding="utf-8")
    agent.chmod(0o755)
    return agent


def calls(folder: Path) -> list[tuple[str, str]]:
    """(action, plug) of every call so far."""
    path = folder / "calls"
    return [(a, p) for a, p, _t, _o in map(json.loads, path.read_text().splitlines())] if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
