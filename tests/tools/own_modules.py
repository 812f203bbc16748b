# SPDX-License-Identifier: GPL-2.0-only
"""A guest's /lib/modules as Debian's packages make it: writable, with the ways to the headers. The lab's is a link into its payload."""

OWN_MODULES = r"""
release=$(uname -r)
rm /lib/modules && mkdir /lib/modules
cp -a /opt/vcs/src/lab/modules/$release /lib/modules/
ln -sfn /opt/vcs/src/lab/updates /lib/modules/$release/updates
ln -s /usr/src/linux-headers-$release /lib/modules/$release/build
ln -s /usr/src/linux-headers-${release%-amd64}-common /lib/modules/$release/source
"""
