# SPDX-License-Identifier: GPL-2.0-only
"""How patient the arena's cluster is, and what its nodes do after boot.

SLOW (environment): how many times slower than alone this host is, so that its other work does not look like a dead node. 1 is somewhat
slower than the product's defaults already; 0 is the defaults themselves, for a host that does nothing else.
"""

from __future__ import annotations

import os
from typing import Final

from vcslab.cluster import MOUNTPOINT, SHARED_DISK

from vcs.config.model import LeaseConfig

NODES: Final = (1, 2, 3)
LOCKSPACE: Final = "faults"
SLOW: Final = float(os.environ.get("SLOW", "1"))
DEFAULTS: Final = SLOW == 0
PACE: Final = SLOW or 1.0
LEASE_MS: Final = LeaseConfig().lease_ms if DEFAULTS else int(30_000 * PACE)
"""Above all the time that a killed daemon has to come back (SAFETY S16), which takes an emulated machine under load many
seconds: over 36 of them on a host with a load of 9."""
PATIENT: Final = "" if DEFAULTS else f"""
[totem]
token_ms = {int(1000 * PACE)}
consensus_ms = {int(600 * PACE)}
detect_ms = {int(400 * PACE)}
[lease]
lease_ms = {LEASE_MS}
[groups]
stop_limit_ms = {int(30_000 * PACE)}
start_limit_ms = {int(60_000 * PACE)}
"""
RESET_WAIT_NS: Final = (LEASE_MS + LeaseConfig().grace_ms + LeaseConfig().margin_ms) * 1_000_000
"How long a node waits before it takes another one to have reset itself (SAFETY S10)."
POWERED: Final = f"""
boot_ms = {int(90_000 * PACE)}
"""
"Goes on in the table [fencing]: how long a node may take to boot."
NODE_SH: Final = f"""#!/bin/sh
# What a node's units do after boot: vcsd is started again when it fails, the file system is mounted as soon as that can be.
( while :; do
    vcsd --config /etc/vcs/cluster.toml; rc=$?
    echo "node.sh: vcsd ended with status $rc"
    case $rc in 0|3|75|78) exit;; esac
    sleep 0.2
  done ) &
vcs wait
until mount -t gfs2 {SHARED_DISK} {MOUNTPOINT}; do sleep 1; done
until python3 -S -m tests.cluster.dlm_lock {LOCKSPACE} create; do sleep 1; done
echo node.sh: up
wait
"""
BACK_S: Final = 180.0 * max(1.0, PACE / 2)
"How long three nodes may take to full strength, boots under emulation on a busy host included."
SOON_S: Final = 60.0 * max(1.0, PACE)
"How long anything may take that needs no boot: a fence, a view, a daemon's start (25 to 50 s of an emulated machine at a load of 10)."
UNASKED_NS: Final = 6_000_000_000
"A machine that nobody has fenced for so long gets its power back."
CLOCK_ERROR_NS: Final = 2_000_000
"Least tolerance in judgements across nodes; what was measured is added."
