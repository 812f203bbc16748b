# SPDX-License-Identifier: GPL-2.0-only
"""Fencing carried out: a method's devices, each by its standard fence agent (vcs/agents.py says what those are).

Exit code 0 of ``off`` and ``reboot`` means done and verified, anything else means not done; a time-out is a failure, never a success. After
a successful ``off`` we ask for ``status`` and believe only "off", if the agent offers it. Several devices: all must have cut the node
off before any is turned on again, or a machine with two power supplies would never lose power.

What is decided here runs on the event loop; each call of an agent has a thread of its own, so that neither an exec that hangs on a disk
nor an agent that hangs on a network holds the loop. Just before each call it is asked again whether the fence is still wanted
(SAFETY S1), and a fence that is not ends at once, its agent with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field

from bridge.standby import Standby
from bridge.storage import refuse_cluster_file_system
from vcs import agents
from vcs.agent_process import Agent, BadOption, Call, Stop, call
from vcs.agents import FenceAgentError, Metadata, how, last_line, without_secrets
from vcs.config.model import ClusterConfig, FenceDevice, FenceMethod, NodeConfig
from vcs.realtime import as_we_are

STATUS_ON, STATUS_OFF = 0, 2
LAG_S, ASK_AGAIN_S = 10.0, 0.5
"So long a device may take to notice what it did."


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an agent."""

    device: str
    action: str
    ok: bool
    ms: int
    said: str = ""
    "Its last line, or how it ended."


@dataclass(frozen=True, slots=True)
class Outcome:
    ok: bool
    detail: str
    "One line for people: what was done, or what went wrong."
    seconds: float = 0.0
    method: str = ""
    steps: tuple[Step, ...] = ()
    cut: bool = False
    "Not confirmed: off ended well, and the node has power. A machine that is always given power again looks like that."


@dataclass(frozen=True, slots=True)
class FenceOrder:
    """What is to be done to whom. ``still`` says whether that incarnation is still to be fenced."""

    nodeid: int
    incarnation: int
    method: int = 0
    "Index into the methods of the node."
    action: str = ""
    "off or reboot; empty: what is configured."
    still: Callable[[], bool] = field(default=lambda: True, compare=False)


class NotWanted(Exception):
    """The fence is called off: nobody owes it any more."""


class _Failed(Exception):
    """A device did not do it; the text says why."""


class _StillOn(_Failed):
    """It says that it did, and that the node has power."""


class Fences:
    """The devices of a configuration. ``check()`` before the first use."""

    def __init__(self, config: ClusterConfig, standby: Standby | None = None) -> None:
        """``standby``: agents that wait for what they are told."""
        self._config = config
        self._standby = standby
        self._paths: dict[str, str] = {}
        self.metadata: Mapping[str, Metadata] = {}
        "Device -> what its agent says of itself."
        self._running: dict[tuple[int, int], asyncio.Task[Outcome]] = {}
        self._busy: dict[str, asyncio.Lock] = {}
        self.before_launch: Callable[[], None] = lambda: None
        "Whatever else uses the devices gives way."
        self.after_fence: Callable[[], None] = lambda: None

    async def check(self) -> None:
        """Find all agents, read their metadata, compare the options. Up to 15 s; raises FenceAgentError with everything found."""
        devices = list(self._config.devices.values())
        found = await asyncio.gather(*(asyncio.to_thread(self._look, d) for d in devices))
        self._paths = {d.name: path for d, (path, _) in zip(devices, found, strict=True)}
        self.metadata = {d.name: metadata for d, (_, metadata) in zip(devices, found, strict=True)}
        wrong = agents.findings(self._config, self.metadata)
        if wrong:
            raise FenceAgentError("; ".join(map(str, wrong)), "see `vcs config check`")

    @staticmethod
    def _look(device: FenceDevice) -> tuple[str, Metadata]:
        path = agents.find(device.agent)
        refuse_cluster_file_system(path, "fence agent")
        return path, agents.read_metadata(path)

    def path(self, device: str) -> str:
        return self._paths.get(device, "")

    # --- fencing ------------------------------------------------------------------------------------------------------

    def launch(self, order: FenceOrder) -> asyncio.Task[Outcome]:
        """Begin; the result is the outcome, never an exception. One order for an incarnation at a time."""
        key = (order.nodeid, order.incarnation)
        self.before_launch()
        task = asyncio.get_running_loop().create_task(self._fence(order), name=f"fence-{order.nodeid}")
        self._running[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: tuple[int, int], done: asyncio.Task[Outcome]) -> None:
        if self._running.get(key) is done:
            del self._running[key]
        if not self.busy:
            self.after_fence()

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def cancel(self, nodeid: int, incarnation: int) -> None:
        """That incarnation is not to be fenced any more: its running call is killed, no other begins."""
        task = self._running.get((nodeid, incarnation))
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """Nothing goes on without us: another node fences now."""
        for task in list(self._running.values()):
            task.cancel()

    async def _fence(self, order: FenceOrder) -> Outcome:
        node, began = self._config.node(order.nodeid), time.monotonic()
        methods = self._config.fence_methods(order.nodeid)
        if node is None or order.method >= len(methods):
            return Outcome(False, f"no fence agent is configured for node {order.nodeid}")
        work = _Work(self, node, methods[order.method], order)
        cut = False
        try:
            ok, detail = True, await work.run()
        except _Failed as failure:
            ok, detail, cut = False, str(failure), isinstance(failure, _StillOn)
        except (NotWanted, asyncio.CancelledError):
            ok, detail = False, "called off: nobody waits for this fence any more"
        except Exception as error:  # an agent must not be able to end this without an answer
            ok, detail = False, str(error)
        return Outcome(ok, detail, time.monotonic() - began, work.method.name, tuple(work.steps), cut)

    # --- one call -----------------------------------------------------------------------------------------------------

    def device(self, name: str) -> FenceDevice:
        return self._config.devices[name]

    async def ask(
        self, device: FenceDevice, method: FenceMethod, node: NodeConfig, action: str, timeout_s: float = 0.0, urgent: bool = False
    ) -> Call:
        """One call of the device's agent about ``node``. ``urgent``: by one that waits, if there is one. Raises BadOption or OSError;
        cancelled: the agent dies."""
        options = agents.call_options(device, method, node, self.metadata[device.name], action)
        # A power strip serves one at a time; a second session would fail.
        async with self._busy.setdefault(device.name, asyncio.Lock()) if device in self._config.fence_devices else contextlib.nullcontext():
            path = self._paths[device.name]
            agent = self._standby.take(path) if self._standby is not None and urgent else None
            found = await _threaded(path, options, timeout_s or device.timeout_ms / 1000, agent)
        return Call(found.code, without_secrets(found.out, options), without_secrets(found.err, options), found.stopped)


class _Work:
    """One method on one node."""

    def __init__(self, fences: Fences, node: NodeConfig, method: FenceMethod, order: FenceOrder) -> None:
        self.fences, self.node, self.method, self.order = fences, node, method, order
        self.steps: list[Step] = []

    async def run(self) -> str:
        """What was done, in words. Raises _Failed, NotWanted."""
        devices = [self.fences.device(name) for name in self.method.devices]
        if len(devices) == 1:
            return await self._one(devices[0], self._action(devices[0]))
        done: list[FenceDevice] = []
        try:
            await self._each([self._off(d, done) for d in devices])
        except BaseException:
            # Power that is off for nothing would hold the node down for good; the next attempt begins anew.
            await self._on_again(done)
            raise
        await self._on_again(done)
        return f"{self.method.name}: all off" + (", then on" if any(self._action(d) == "reboot" for d in devices) else "")

    def _action(self, device: FenceDevice) -> str:
        wanted = self.order.action or device.action
        return wanted if wanted in self.fences.metadata[device.name].actions else device.action

    async def _each(self, calls: list[Coroutine[object, object, str]]) -> None:
        if self.method.parallel:
            results = await asyncio.gather(*calls, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            return
        for i, one in enumerate(calls):
            try:
                await one
            except BaseException:
                for rest in calls[i + 1 :]:
                    rest.close()
                raise

    async def _off(self, device: FenceDevice, done: list[FenceDevice]) -> str:
        said = await self._one(device, "off")
        done.append(device)
        return said

    async def _on_again(self, devices: list[FenceDevice]) -> None:
        """What a reboot owes after all is off. The node is fenced, so nothing here can make that undone."""
        for device in devices:
            if self._action(device) == "reboot":
                with contextlib.suppress(_Failed, BadOption, OSError):
                    await self._call(device, "on")

    async def _one(self, device: FenceDevice, action: str) -> str:
        """``action``, repeated as configured, and confirmed. Raises _Failed."""
        if device.delay_ms:
            await asyncio.sleep(device.delay_ms / 1000)
        deadline = time.monotonic() + device.timeout_ms / 1000
        for left in range(device.retries, -1, -1):
            if not self.order.still():
                raise NotWanted
            ended = await self._call(device, action)
            if ended.code == 0:
                break
            if not left:
                raise _Failed(f"{device.name}: {last_line(ended) or how(ended)}")
            deadline = time.monotonic() + device.timeout_ms / 1000
        if action != "off" or "status" not in self.fences.metadata[device.name].actions:
            return f"{device.name}: {action} done"
        return await self._confirm(device, deadline)

    async def _confirm(self, device: FenceDevice, deadline: float) -> str:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _Failed(f"{device.name}: off is done, but no time was left to confirm it")
        lag, powered = min(deadline, time.monotonic() + LAG_S), False
        ended = await self._call(device, "status", left)
        while ended.code == STATUS_ON and time.monotonic() + ASK_AGAIN_S < lag:
            powered = True
            await asyncio.sleep(ASK_AGAIN_S)
            if not self.order.still():
                raise NotWanted
            # The device's own time: what is left of the lag would kill the last call of a slow one, and with it what it has to say.
            ended = await self._call(device, "status", max(deadline - time.monotonic(), ASK_AGAIN_S))
        if ended.code == STATUS_OFF:
            return f"{device.name}: off, status is off"
        done = f"{device.name}: off ended with exit code 0, but"
        if ended.code == STATUS_ON:
            raise _StillOn(f"{done} its status is still on")
        if powered:
            raise _StillOn(f"{done} its status was on, and then action=status {how(ended)}")
        raise _Failed(f"{done} action=status {how(ended)}")

    async def _call(self, device: FenceDevice, action: str, timeout_s: float = 0.0) -> Call:
        began = time.monotonic()
        ended = await self.fences.ask(device, self.method, self.node, action, timeout_s, urgent=True)
        good = ended.code in ((STATUS_ON, STATUS_OFF) if action == "status" else (0,))
        said = last_line(ended) if good else last_line(ended) or how(ended)
        self.steps.append(Step(device.name, action, good, round((time.monotonic() - began) * 1000), said))
        return ended


async def _threaded(path: str, options: Mapping[str, str], timeout_s: float, agent: Agent | None = None) -> Call:
    """One call in a thread of its own. Its end wakes the loop by itself; cancelled: the call is called off and its end awaited."""
    loop, stop = asyncio.get_running_loop(), Stop()
    ended: asyncio.Future[Call] = loop.create_future()

    def tell(found: Call | BaseException) -> None:
        if ended.cancelled():
            return
        if isinstance(found, BaseException):
            ended.set_exception(found)
        else:
            ended.set_result(found)

    become = as_we_are()

    def work() -> None:
        become()
        found: Call | BaseException
        try:
            found = call(path, options, timeout_s, stop, agent)
        except BaseException as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=work, name="fence", daemon=True).start()
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(Exception):
            await asyncio.shield(ended)
        raise
    finally:
        if ended.done():
            stop.close()
