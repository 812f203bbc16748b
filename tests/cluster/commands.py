# SPDX-License-Identifier: GPL-2.0-only
"""What `vcs` says on a node, and whether the kernel says the same."""

from __future__ import annotations

import json
from typing import Any

from vcslab.cluster import FSNAME, HANDLE, VcsCluster
from vcslab.evidence import GROUP

from vcs.model import event_text


def ask(vcs: VcsCluster, node: int, command: str, key: str) -> Any:
    """The answer of `vcs COMMAND --json`, which must say that it is of version 1."""
    document = json.loads(vcs[node].run(f"vcs {command} --json", timeout=30, check=True).out)
    assert document["version"] == 1
    return document[key]


def agrees_with_kernel(vcs: VcsCluster, node: int, source: str) -> None:
    """status and groups of one node against /sys/kernel/vcs; ``source`` is who must have answered, vcsd or kernel."""
    report, view = ask(vcs, node, "status", "status"), vcs.view(node)
    assert report["source"] == source and report["cluster"] == vcs.sysfs(node, "cluster_name") and report["handle"] == HANDLE
    assert report["nodeid"] == int(vcs.sysfs(node, "nodeid"))
    assert report["provider"] == {"type": vcs.sysfs(node, "provider/type"), "state": vcs.sysfs(node, "provider/state")}
    assert report["view"] == view
    assert report["groups"] == 1

    [group] = ask(vcs, node, "groups", "groups")
    kernel = vcs.group(node)
    assert group["name"] == GROUP and group["state"] == kernel["state"] and group["phase"] == kernel["phase"]
    assert group["event"] == event_text(int(kernel["event"]))
    assert group["acked"] == (kernel["acked_event"] == kernel["event"])
    assert group["owner"] == vcs.sysfs(node, f"groups/dlm:{FSNAME}/owner") == "dlm_glue"
