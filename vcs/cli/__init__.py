# SPDX-License-Identifier: GPL-2.0-only
"""The command line: one verb, one file. Imports vcs only; mount_gfs2 stands alone and is as small as mount(8) wants it."""
