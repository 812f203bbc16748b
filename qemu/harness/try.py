# SPDX-License-Identifier: GPL-2.0-only
"""Try one shell command in a fresh virtual machine with the source as it is now.

    PYTHONPATH=qemu python -m harness.try [--kernel 6.12] [--memory 768] [--disk MIB] [--timeout 120] -- 'commands'

Prints the command's output and exits with its status; 70 if a kernel complained or the lab failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.cache import say
from harness.cluster import Cluster
from harness.errors import LabError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.try", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--nodes", type=int, default=1, help="boot so many; the command runs on each")
    parser.add_argument("--memory", type=int, default=768, metavar="MIB")
    parser.add_argument("--disk", type=int, default=0, metavar="MIB", help="attach a shared disk (/dev/vdd)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S")
    parser.add_argument("--append", default="", help="kernel command line")
    parser.add_argument("--artifacts", type=Path, help="keep logs here")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    code = 0
    try:
        with Cluster(options.nodes, options.kernel, shared_disk_mib=options.disk, memory_mib=options.memory,
                     append=options.append, artifacts=options.artifacts) as cluster:
            say("booted")
            results = cluster.each(lambda m: m.run(" ".join(options.command), options.timeout))
            for machine, result in zip(cluster, results, strict=True):
                prefix = f"--- {machine.name}\n" if len(cluster) > 1 else ""
                print(prefix + result.out, end="", flush=True)
                print(result.err, end="", file=sys.stderr, flush=True)
                if result.timed_out:
                    say(f"killed after {options.timeout:.0f} s")
                code = code or result.rc
    except LabError as error:
        print(error, file=sys.stderr)
        return 70
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
