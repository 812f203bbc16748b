# SPDX-License-Identifier: GPL-2.0-only
"""gcov's counters of the modules in a machine, fetched before it goes: with GCOV=folder the pytest plugin does so for every cluster."""

from __future__ import annotations

import os
from pathlib import Path

from harness.cluster import Cluster
from harness.kernels import DEBUG

#: files in debugfs have no size, so tar cannot take them as they are; the counters of unloaded modules are there, too
FETCH = """
cd /sys/kernel/debug/gcov || exit 1
rm -rf /run/gcov && mkdir /run/gcov
find . -name '*.gcda' | while read -r file; do
	mkdir -p "/run/gcov/${file%/*}"; cat "$file" > "/run/gcov/$file"
done
tar -C /run/gcov -czf /run/gcov.tgz .
"""


def collect(cluster: Cluster, folder: Path) -> None:
    """The counters of each machine that is on, as another archive in `folder`; their paths are those of the objects on the host.

    Nothing from a kernel without gcov. Raises LabError or OSError as the machine does.
    """
    if cluster.kernel.series != DEBUG:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for machine in cluster:
        if machine.on:
            machine.run(FETCH, 60, check=True)
            archive = folder / f"{cluster.artifacts.name}-{machine.name}-{os.getpid()}.tgz"
            archive.write_bytes(machine.read_bytes("/run/gcov.tgz"))
