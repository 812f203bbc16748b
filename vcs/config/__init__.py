# SPDX-License-Identifier: GPL-2.0-only
"""cluster.toml: model (values and defaults), load (TOML to values, every error at once)."""
