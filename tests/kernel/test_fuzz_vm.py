# SPDX-License-Identifier: GPL-2.0-only
"""Netlink messages made from the spec (tests/kernel/fuzz), good ones and spoiled ones mixed, against the module: no splat, no hang, every
command reached with success and with refusals, and everything can be taken away in the end. FUZZ=1000000 for the long run."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Machine
from harness.pytest_plugin import Factory

from tests.kernel.fuzz.spec_fuzz import ATTRS, DOS, DUMPS, Fuzzer
from tests.kernel.versions import SLOW, check_leaks
from vcs import _spec

pytestmark = pytest.mark.vm

MESSAGES = int(os.environ.get("FUZZ", "20000"))
BATCH = 20_000
PIECE = 1 << 19
"Of what is written over at a time; a batch is some MB."
BATCH_LIMIT_S = 400.0 * SLOW
SEED = int(os.environ.get("SEED", "5"))
SENDER = Path(__file__).parent / "fuzz" / "sender.c"
CLEAN = """
from contextlib import suppress
from tests.kernel.guest_contract import KernelBackend
from vcs.errors import SwitchError
backend = KernelBackend()
port = backend.port()
for cluster in port.clusters():
    with suppress(SwitchError):
        port.detach_kernel(cluster.handle)
backend.clean()
"""


def build(to: Path) -> Path:
    """The sender, which has its numbers from the spec."""
    numbers = [f"-DA_{name.upper()}={ATTRS['vcs'][name].value}" for name in ("session", "incarnation")]
    subprocess.run(["gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", *numbers, "-o", str(to), str(SENDER)], check=True)
    return to


def send(node: Machine, seed: int, count: int) -> Counter[tuple[int, int]]:
    """(command, errno) -> how often."""
    packed = gzip.compress(Fuzzer(seed).records(count), 1)
    for at in range(0, len(packed), PIECE):
        node.write("/tmp/messages.gz", packed[at : at + PIECE], append=at > 0)
    node.run("gunzip -f /tmp/messages.gz", 60, check=True)
    said = node.run("/tmp/sender /tmp/messages 1", BATCH_LIMIT_S, check=True).out.splitlines()
    assert int(said[-1].removeprefix("sent ")) >= count, said[-1]
    rows = [tuple(map(int, line.split())) for line in said[:-1]]
    return Counter({(command, code): times for command, code, times in rows})


def test_messages_made_from_the_spec(cluster: Factory, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    kernel = os.environ.get("VCS_KERNEL", "6.12").split(",")[-1]
    node = cluster(nodes=1, kernel=kernel, cpus=2)[1]
    node.run("modprobe vcs dry_run=1 && modprobe vcs_heartbeat", 60, check=True)
    node.write("/tmp/sender", build(tmp_path / "sender").read_bytes(), mode=0o755)
    outcomes: Counter[tuple[int, int]] = Counter()
    for batch in range(-(-MESSAGES // BATCH)):
        outcomes += send(node, SEED + batch, min(BATCH, MESSAGES))
    by_errno: Counter[int] = Counter()
    for (_command, code), times in outcomes.items():
        by_errno[code] += times
    record_property("messages", sum(outcomes.values()))
    record_property("outcomes", {errno.errorcode.get(code, "ok"): times for code, times in by_errno.most_common()})
    print({errno.errorcode.get(code, "ok"): times for code, times in by_errno.most_common()})
    for name in {*DOS, *(op.name for op in DUMPS)}:
        assert outcomes[_spec.COMMANDS[name], 0], f"{name} never succeeded: the fuzzer reaches too little"
    for code in (errno.EINVAL, errno.ERANGE, errno.ENOENT, errno.EBUSY, errno.ESTALE, errno.EPROTO, errno.EEXIST, errno.EOPNOTSUPP):
        assert by_errno[code], f"never {errno.errorcode[code]}"
    assert not by_errno[errno.EAGAIN], "an answer did not come within 20 s"
    node.run(["python3", "-c", CLEAN], 120, check=True, env={"PYTHONPATH": "/opt/vcs/src:/opt/vcs/lib"})
    node.run("rmmod vcs_heartbeat vcs", 60, check=True)
    check_leaks(node)
