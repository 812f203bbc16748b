# SPDX-License-Identifier: GPL-2.0-only
"""Standard fence agents: a program that turns a node off, told what to do by ``name=value`` lines on its standard input.

The protocol is ClusterLabs' FenceAgentAPI: exit code 0 of ``off`` and ``reboot`` means done and verified, anything else means not
done; ``status`` answers 0 for on, 2 for off; ``metadata`` prints XML with the actions and parameters. A time-out is a failure,
never a success. After a successful ``off`` we ask for ``status`` and believe only "off", if the agent offers it.

Agents run in a thread of their own: neither an exec that hangs on a disk nor an agent that hangs on a network holds the event
loop. No shell is involved, and the child gets a fixed environment, its own session, and none of our descriptors.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from xml.etree import ElementTree

from bridge.storage import refuse_cluster_file_system
from vcs.config.model import FencingConfig, NodeConfig
from vcs.errors import VcsError

SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
METADATA_TIMEOUT_S = 15.0
REAP_S = 2.0
"How long a killed agent may take to go before it is given up on (it hangs in the kernel)."
STATUS_ON, STATUS_OFF = 0, 2
DETAIL_MAX = 400
"Of an agent's output, this much goes into logs (characters, the end of it)."


class FenceAgentError(VcsError):
    """The fence agent cannot be used as configured."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class Outcome:
    ok: bool
    detail: str
    "One line for people: what was done, or what went wrong."
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the agent says of itself. Names only: the rest is for people."""

    name: str
    actions: frozenset[str]
    parameters: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Run:
    code: int | None
    "None: it did not end in time."
    out: str
    err: str


def find(agent: str) -> str:
    """Path of the executable that ``agent`` (a path or a name) means. Raises FenceAgentError."""
    where = agent if "/" in agent else (shutil.which(agent, path=SEARCH) or "")
    if not where:
        raise FenceAgentError(
            f"fence agent {agent!r} is not installed (looked in {SEARCH})",
            "install its package (Debian: fence-agents) or give the path as fencing.agent",
        )
    if not os.path.isfile(where):
        raise FenceAgentError(f"fence agent {where} does not exist", "correct fencing.agent")
    if not os.access(where, os.X_OK):
        raise FenceAgentError(f"fence agent {where} is not executable", f"chmod +x {where}")
    refuse_cluster_file_system(where, "fence agent")
    return os.path.abspath(where)


def parse_metadata(text: str) -> Metadata:
    """Raises ValueError if ``text`` is no agent's metadata."""
    try:
        root = ElementTree.fromstring(text.strip())
    except ElementTree.ParseError as error:
        raise ValueError(f"not XML: {error}") from None
    if root.tag != "resource-agent":
        raise ValueError(f"root element is <{root.tag}>, not <resource-agent>")

    def names(path: str) -> frozenset[str]:
        return frozenset(name for e in root.iterfind(path) if (name := e.get("name")))

    return Metadata(root.get("name", ""), names("actions/action"), names("parameters/parameter"))


class FenceAgent:
    """One configured agent. ``check()`` before the first use; ``fence()`` blocks, ``launch()`` does not."""

    def __init__(self, config: FencingConfig) -> None:
        self._config = config
        self._path = ""
        self._metadata = Metadata("", frozenset(), frozenset())
        self.action = config.options.get("action", "off").lower()

    @property
    def path(self) -> str:
        return self._path

    @property
    def metadata(self) -> Metadata:
        return self._metadata

    def check(self) -> None:
        """Find the agent and read its metadata. Blocks up to 15 s; raises FenceAgentError that names agent and remedy."""
        if self.action not in ("off", "reboot"):
            raise FenceAgentError(
                f"fencing.options.action is {self.action!r}", "use off (the default) or reboot"
            )
        self._path = find(self._config.agent)
        run = self._run({"action": "metadata"}, METADATA_TIMEOUT_S)
        remedy = f"try: echo action=metadata | {self._path}"
        if run.code != 0:
            raise FenceAgentError(f"fence agent {self._path}: action=metadata {_how(run)}", remedy)
        try:
            self._metadata = parse_metadata(run.out)
        except ValueError as error:
            raise FenceAgentError(f"fence agent {self._path}: its metadata cannot be read: {error}", remedy) from None
        if self.action not in self._metadata.actions:
            has = ", ".join(sorted(self._metadata.actions)) or "none"
            raise FenceAgentError(
                f"fence agent {self._path} cannot {self.action!r} (its actions: {has})",
                "choose another agent, or set fencing.options.action",
            )

    def options(self, node: NodeConfig, action: str) -> dict[str, str]:
        """What the agent is told: the common options, the node's own on top, then action and node name."""
        merged = {**self._config.options, **node.fence, "nodename": node.name, "action": action}
        if not {"plug", "port"} & set(merged):
            # Newer agents call it plug, older ones port; the node's name is the usual plug, as with other cluster managers.
            for name in ("plug", "port"):
                if name in self._metadata.parameters:
                    merged[name] = node.name
                    break
        return merged

    def fence(self, node: NodeConfig) -> Outcome:
        """Turn ``node`` off and confirm it. Blocks at most the configured time-out; never raises."""
        began = time.monotonic()
        deadline = began + self._config.timeout_ms / 1000
        try:
            ok, detail = self._fence(node, deadline)
        except Exception as error:  # an agent must not be able to end the thread without an answer
            ok, detail = False, f"{self._path}: {error}"
        return Outcome(ok, detail, time.monotonic() - began)

    def launch(self, node: NodeConfig) -> Future[Outcome]:
        """``fence()`` in a thread of its own, begun at once."""
        future: Future[Outcome] = Future()
        work: Callable[[], None] = lambda: future.set_result(self.fence(node))  # noqa: E731
        threading.Thread(target=work, name=f"fence-{node.name}", daemon=True).start()
        return future

    def _fence(self, node: NodeConfig, deadline: float) -> tuple[bool, str]:
        run = self._run(self.options(node, self.action), deadline - time.monotonic())
        what = f"{self._path} action={self.action} for {node.name}"
        if run.code != 0:
            return False, f"{what}: {_how(run)}"
        if self.action != "off" or "status" not in self._metadata.actions:
            return True, f"{what}: done"
        left = deadline - time.monotonic()
        if left <= 0:
            return False, f"{what}: done, but no time was left to confirm it"
        status = self._run(self.options(node, "status"), left)
        if status.code == STATUS_OFF:
            return True, f"{what}: done, status is off"
        if status.code == STATUS_ON:
            return False, f"{what}: exit code 0, but its status is still on"
        return False, f"{what}: exit code 0, but action=status {_how(status)}"

    def _run(self, options: dict[str, str], timeout_s: float) -> _Run:
        """One call. Raises FenceAgentError for options that the protocol cannot carry, OSError if it cannot be executed."""
        for name, value in options.items():
            if not name or any(c in name for c in "= \t\n") or "\n" in value:
                raise FenceAgentError(f"fence option {name!r} cannot be given to an agent")
        text = "".join(f"{name}={value}\n" for name, value in options.items())
        child = subprocess.Popen(
            [self._path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": SEARCH, "LC_ALL": "C.UTF-8", "HOME": "/"},
            cwd="/",
            start_new_session=True,
        )
        # The whole cluster waits for it: before the busy file system's own processes, behind the daemons' real-time priority.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, child.pid, -20)
        with contextlib.suppress(OSError), open(f"/proc/{child.pid}/oom_score_adj", "w", encoding="ascii") as score:
            score.write("0")  # our own protection is not for somebody else's program
        code: int | None = None
        out = err = b""
        try:
            out, err = child.communicate(text.encode(), timeout=max(timeout_s, 0.01))
            code = child.returncode
        except subprocess.TimeoutExpired as expired:
            err = expired.stderr or b""
        finally:
            _end(child)
        return _Run(code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a call, and close its pipes."""
    if child.poll() is None:
        # Not reaped yet, so its id, which is also its group's, cannot belong to anybody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(REAP_S)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _how(run: _Run) -> str:
    """How a failed call ended, in words."""
    said = " ".join((run.err.strip() or run.out.strip()).split())[-DETAIL_MAX:]
    if run.code is None:
        text = "did not end in time and was killed"
    elif run.code < 0:
        text = f"died of signal {-run.code}"
    else:
        text = f"ended with exit code {run.code}"
    return f"{text}: {said}" if said else text
