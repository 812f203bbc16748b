# SPDX-License-Identifier: GPL-2.0-only
"""What fence agents say of themselves: the metadata of Debian's own agents, as installed, and what a configuration makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.fence_agent import make
from vcs.agents import Metadata, find, findings, is_secret, parse_metadata, read_metadata, without_secrets
from vcs.config.load import loads
from vcs.config.model import ClusterConfig
from vcs.errors import ConfigError

NODES = """[cluster]
name = "c"
[[node]]
id = 1
name = "one"
address = "192.0.2.1"
[[node]]
id = 2
name = "two"
address = "192.0.2.2"
"""


def config(text: str) -> ClusterConfig:
    return loads(NODES + text, with_key=False)


def wrong(text: str, known: dict[str, Metadata]) -> list[str]:
    return [str(f) for f in findings(config(text), known)]


@pytest.fixture(scope="module")
def debian() -> dict[str, Metadata]:
    """Of the package fence-agents (qemu/packages.txt)."""
    return {name: read_metadata(find(name)) for name in ("fence_ipmilan", "fence_virsh", "fence_scsi")}


def test_debians_agents_describe_themselves(debian: dict[str, Metadata]) -> None:
    ipmi, virsh, scsi = debian["fence_ipmilan"], debian["fence_virsh"], debian["fence_scsi"]
    assert {"on", "off", "reboot", "status", "monitor", "metadata", "validate-all"} <= ipmi.actions
    assert ipmi.parameters["ip"].obsoletes == "ipaddr" and ipmi.parameters["ipaddr"].deprecated
    assert ipmi.parameters["method"].choices == ("onoff", "cycle")
    assert "plug" in virsh.parameters and virsh.parameters["username"].required
    assert not ipmi.unfences and not virsh.unfences and scsi.unfences
    assert "reboot" not in scsi.actions, "storage fencing reboots nobody"


def test_the_usual_configurations_of_debians_agents_are_right(debian: dict[str, Metadata]) -> None:
    assert wrong('[node.fence]\nip = "192.0.2.102"\n[fencing]\nagent = "fence_ipmilan"\n'
                 'options = { ip = "192.0.2.101", username = "u", password = "p", lanplus = true }\n', debian) == []
    assert wrong('[fencing]\nagent = "fence_virsh"\noptions = { ip = "192.0.2.9", username = "u", ssh = true }\n', debian) == []
    assert wrong('[fencing]\nagent = "fence_scsi"\noptions = { devices = "/dev/sda" }\n', debian) == []


def test_old_names_of_options_will_do(debian: dict[str, Metadata]) -> None:
    assert wrong('[fencing]\nagent = "fence_ipmilan"\noptions = { ipaddr = "192.0.2.101", login = "u", passwd = "p" }\n', debian) == []


def test_what_is_wrong_names_the_option_and_the_nearest(debian: dict[str, Metadata]) -> None:
    found = wrong('[fencing]\nagent = "fence_ipmilan"\noptions = { ip = "x", usrname = "u", method = "onof" }\n', debian)
    assert found == [
        "fencing.options.usrname: fence_ipmilan has no option 'usrname'; did you mean 'username'?",
        "fencing.options.method: 'onof' is not among the choices of fence_ipmilan; one of onoff, cycle",
    ]
    found = wrong('[fencing]\nagent = "fence_virsh"\noptions = { ip = "x" }\n', debian)
    assert found[0].startswith("node: fence_virsh: fence_virsh demands the option 'username' for node one; give it")
    found = wrong('[[fence_device]]\nname = "disks"\nagent = "fence_scsi"\naction = "reboot"\n'
                  , {"disks": debian["fence_scsi"]})
    assert "fence_device.action: fence_scsi cannot 'reboot'" in found[0]


def test_options_of_methods_are_checked_where_they_stand(debian: dict[str, Metadata]) -> None:
    text = """[[node.method]]
devices = ["board"]
options = { ip = "192.0.2.102", board = { lanpluss = true } }
[[node.method]]
devices = ["strip", "self2"]
[[fence_device]]
name = "board"
agent = "fence_ipmilan"
"""
    with pytest.raises(ConfigError) as caught:
        config(text)
    assert [p.partition(" node.")[2] for p in caught.value.problems] == [
        "method.devices: there is no device 'strip'; known are board",
        "method.devices: there is no device 'self2'; known are board",
    ]
    known = {"board": debian["fence_ipmilan"]}
    assert wrong(text.replace('"strip", "self2"', '"self"'), known) == [
        "node.method.options.board.lanpluss: fence_ipmilan has no option 'lanpluss'; did you mean 'lanplus'?"]


def test_secrets_are_told_by_their_names() -> None:
    assert all(map(is_secret, ("password", "passwd", "snmp_priv_passwd", "login_pwd", "community", "Api_Token", "client_secret")))
    assert not any(map(is_secret, ("ip", "plug", "username", "method", "port")))
    assert without_secrets("login u with hush-hush", {"password": "hush-hush", "username": "u"}) == "login u with (hidden)"


def test_other_xml_is_no_metadata() -> None:
    with pytest.raises(ValueError, match="resource-agent"):
        parse_metadata("<html/>")


def test_an_agent_that_says_more_than_xml_is_no_agent(tmp_path: Path) -> None:
    agent = make(tmp_path)
    assert read_metadata(str(agent)).parameters["ip"].required
