# SPDX-License-Identifier: GPL-2.0-only
"""The power switch that guests reach with fence_lab: cuts, boots, reports; can be told to be slow or broken."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import LabError

if TYPE_CHECKING:
    from harness.machine import Machine

DONE, FAILED, OFF = 0, 1, 2
HELD_MAX_S = 120.0


@dataclass(frozen=True, slots=True)
class PowerRequest:
    """One line of the switch's history. Times in host ns."""

    asked_by: int
    action: str
    victim: int  #: 0 if the request named none
    asked_ns: int
    gone_ns: int  #: when the victim's process was gone; 0 if it was not cut
    code: int  #: the fence agent's exit status
    answered_ns: int  #: when the agent was told, that is, before whoever asked could know


class PowerSwitch:
    """Requests for different victims run at the same time; two for one victim wait for each other."""

    def __init__(self, machines: Mapping[int, Machine], nodes: int, record: Callable[..., None], log: Path) -> None:
        self._machines = machines
        self._record = record
        self._log = log
        self._locks = {node: threading.Lock() for node in range(1, nodes + 1)}
        self._count = threading.Lock()
        self.broken: set[int] = set()  #: victims that the switch fails to cut
        self.delay_s = 0.0  #: before every off and reboot
        self.serving = 0  #: requests that are being served now
        self.cutting: list[int] = []  #: victims of the offs and reboots among them
        self._free = threading.Event()
        self._free.set()
        self.boot_after_reboot = True  #: False: a reboot leaves the victim off, for a test that boots it itself
        self.history: list[PowerRequest] = []

    def set_broken(self, *victims: int) -> None:
        """Fail requests for `victims`; without arguments for all nodes."""
        self.broken = set(victims or self._machines)

    def hold(self) -> None:
        """A switch that is slow until the story says release(): offs and reboots wait for that, two minutes at most."""
        self._free.clear()

    def release(self) -> None:
        """Let what waits be done."""
        self._free.set()

    def set_working(self) -> None:
        """Neither broken nor slow."""
        self.broken, self.delay_s = set(), 0.0
        self.release()

    def answer(self, asker: Machine, line: str) -> str:
        """Serve `action plug` for `asker`; `code text` for the agent."""
        asked = time.monotonic_ns()
        action, _, plug = line.partition(" ")
        victim = self._victim(plug.strip())
        gone = 0
        cuts = [victim] if action in ("off", "reboot") else []
        with self._count:
            self.serving += 1
            self.cutting += cuts
        try:
            code, text, gone = self._serve(action, victim, plug)
        except LabError as error:
            code, text = FAILED, str(error)
        finally:
            with self._count:
                self.serving -= 1
                for cut in cuts:
                    self.cutting.remove(cut)
        request = PowerRequest(asker.spec.node, action, victim, asked, gone, code, time.monotonic_ns())
        self.history.append(request)
        with open(self._log, "a", encoding="ascii") as file:
            file.write(json.dumps(asdict(request)) + "\n")
        details: dict[str, Any] = {"asked_by": f"node{asker.spec.node}", "victim": plug or "-", "code": code}
        self._record(f"fence {action}", 0, **details)
        return f"{code} {text}"

    def _victim(self, plug: str) -> int:
        number = plug.removeprefix("node")
        return int(number) if number.isdigit() and int(number) in self._machines else 0

    def _serve(self, action: str, victim: int, plug: str) -> tuple[int, str, int]:
        if action in ("monitor", "validate-all"):
            return (FAILED, "the power switch does not answer", 0) if self.broken else (DONE, "", 0)
        if action in ("list", "list-status"):
            states = {n: "on" if m.on else "off" for n, m in self._machines.items()}
            return DONE, "\n".join(f"{n},node{n}" + (f",{s}" if action == "list-status" else "") for n, s in states.items()), 0
        if not victim:
            return FAILED, f"no such plug: {plug!r}", 0
        if victim in self.broken:
            return FAILED, f"the power switch cannot reach plug {plug}", 0
        machine = self._machines[victim]
        if action == "status":
            return (DONE, "Status: ON", 0) if machine.on else (OFF, "Status: OFF", 0)
        if action not in ("off", "on", "reboot"):
            return FAILED, f"unknown action {action!r}", 0
        gone = 0
        with self._locks[victim]:
            if action in ("off", "reboot"):
                time.sleep(self.delay_s)  # a slow switch, by the test's wish
                self._free.wait(HELD_MAX_S)
                gone = machine.power_off()
            if not machine.on and (action == "on" or (action == "reboot" and self.boot_after_reboot)):
                machine.power_on()
                threading.Thread(target=_finish_boot, args=(machine,), daemon=True).start()
        return DONE, "", gone


def _finish_boot(machine: Machine) -> None:
    """A machine that the switch turned on gets its clocks measured as soon as it is up."""
    try:
        machine.wait_ready()
    except (LabError, OSError):
        return  # whoever waits for this node reports it, with the console's end
