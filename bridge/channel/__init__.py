# SPDX-License-Identifier: GPL-2.0-only
"""Batch channels: ordered messages between programs of a group's members. order.py decides, hub.py and port.py carry out."""
