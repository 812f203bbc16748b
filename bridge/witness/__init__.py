# SPDX-License-Identifier: GPL-2.0-only
"""A witness: a machine outside of the cluster that lets one half of the votes go on (docs/decisions/0018-witness.md)."""
