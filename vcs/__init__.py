# SPDX-License-Identifier: GPL-2.0-only
"""The userland of the Virtual Cluster Switch: value types, configuration, netlink, control socket, command line."""

__version__ = "0.1.0"
