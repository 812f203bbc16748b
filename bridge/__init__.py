# SPDX-License-Identifier: GPL-2.0-only
"""The bridge: groups, quorum and fencing over an engine's ordered stream (coordinator/, pure), and the feeding of the switch."""
