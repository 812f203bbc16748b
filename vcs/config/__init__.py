# SPDX-License-Identifier: GPL-2.0-only
"""cluster.toml: model (values and defaults), schema (what may stand in it), load (text to values, every error at once)."""
