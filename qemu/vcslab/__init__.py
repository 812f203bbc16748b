# SPDX-License-Identifier: GPL-2.0-only
"""What the lab knows about the product: configuring nodes, starting vcsd, mounting GFS2, the demo. The harness knows none of it."""
