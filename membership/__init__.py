# SPDX-License-Identifier: GPL-2.0-only
"""Engines: userland membership and ordered messages under extended virtual synchrony. Above: bridge/. Below: sockets."""
