# SPDX-License-Identifier: GPL-2.0-only
"""The embedded engine: a Totem single-ring protocol, pure but for driver.py and ringseq.py."""
