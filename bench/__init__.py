# SPDX-License-Identifier: GPL-2.0-only
"""The benchmarks: our engine beside corosync, in one lab of network namespaces, in one run, as ratios (`make bench-totem`).

`lab` makes the machines, `corosync` and `ours` are the two contestants behind one interface (`contest`), `node` and `client` are the
programs that run on our machines, `cpg_client.c` is the one on corosync's. Each section is one file; `report` writes the figures.
"""
