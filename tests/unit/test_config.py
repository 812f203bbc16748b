# SPDX-License-Identifier: GPL-2.0-only
"""cluster.toml: what is right loads, what is wrong is said, all of it, with its line."""

from __future__ import annotations

import dataclasses
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vcs.config import keyfile, schema
from vcs.config.lines import key_lines
from vcs.config.load import load, loads
from vcs.config.model import ClusterConfig, GroupsConfig, LeaseConfig, NodeConfig, QuorumConfig, TotemConfig, WitnessConfig
from vcs.errors import ConfigError, VcsError

ROOT = Path(__file__).parents[2]
NODE = '[[node]]\nid = 1\nname = "a"\naddress = "192.0.2.1"\n'
GOOD = '[cluster]\nname = "alpha"\n' + NODE


def problems(text: str, **keywords: Any) -> list[str]:
    """What is wrong with ``text``, without the name of the source. Fails if nothing is."""
    with pytest.raises(ConfigError) as caught:
        loads(text, "c", with_key=False, **keywords)
    assert caught.value.exit_code == 78
    return [p.removeprefix("c:") for p in caught.value.problems]


def config(text: str) -> ClusterConfig:
    return loads(text, "c", with_key=False)


def test_a_list_of_nodes_is_a_complete_configuration() -> None:
    got = config(GOOD)
    assert got == ClusterConfig("alpha", (NodeConfig(1, "a", ("192.0.2.1",)),))
    assert got.expected_votes == 1


def test_every_key_arrives_where_it_belongs() -> None:
    got = config(
        """
        [cluster]
        name = "a-b.c_1"
        key_file = "k"
        engine = "static"
        [[node]]
        id = 4294967295
        name = "n"
        addresses = ["2001:DB8:0::1", "192.0.2.1"]
        votes = 3
        fence = { plug = 7, on = true, name = "x y" }
        [totem]
        port = 1
        token_ms = 1000
        [quorum]
        wait_for_all = false
        expected_votes = 3
        auto_tie_breaker = true
        auto_tie_breaker_node = "4294967295"
        [groups]
        start_limit_ms = 90000
        [fencing]
        agent = "/usr/sbin/fence_x"
        timeout_ms = 1000
        [fencing.options]
        ip = "h"
        [lease]
        lease_ms = 7000
        [dlm]
        port = 2
        protocol = "sctp"
        """
    )
    assert got.nodes == (
        NodeConfig(4294967295, "n", ("2001:db8::1", "192.0.2.1"), 3, {"plug": "7", "on": "1", "name": "x y"}),
    )
    assert (got.name, got.key_file, got.engine) == ("a-b.c_1", "k", "static")
    assert got.totem == TotemConfig(port=1, token_ms=1000)
    assert (got.quorum.wait_for_all, got.expected_votes, got.quorum.auto_tie_breaker_node) == (False, 3, "4294967295")
    assert got.groups == GroupsConfig(start_limit_ms=90000)
    assert (got.fencing.agent, got.fencing.timeout_ms, got.fencing.options) == ("/usr/sbin/fence_x", 1000, {"ip": "h"})
    assert (got.lease.lease_ms, got.dlm.port, got.dlm.protocol) == (7000, 2, "sctp")


WRONG: dict[str, tuple[str, list[str]]] = {
    "nothing": ("", [
        "1: cluster.name: missing; add it: name of the cluster: the part before the colon in a file system's lock table",
        "1: node: there is no node; add one [[node]] with id, name and address for every machine",
    ]),
    "syntax": ("[cluster\n", ['1: not valid TOML: Expected \']\' at the end of a table declaration in column 9; see cluster.toml(5)']),
    "unknown keys": (
        GOOD + 'vote = 2\nzzz = 1\n[quorom]\n',
        [
            "7: node.vote: unknown key; did you mean 'votes'?",
            "8: node.zzz: unknown key; known are id, name, address, addresses, votes, fence, method",
            "9: quorom: unknown section; did you mean 'quorum'?",
        ],
    ),
    "types": (
        '[cluster]\nname = 3\nengine = ["totem"]\n[[node]]\nid = true\nname = "a"\naddresses = "192.0.2.1"\nvotes = 1.5\nfence = "x"\n'
        '[quorum]\nwait_for_all = 1\n[fencing.options]\nx = []\n"a=b" = 1\n',
        [
            "2: cluster.name: 3 is no string; write it in quotes",
            "3: cluster.engine: a list is no string; write it in quotes",
            "5: node.id: true is no whole number; write a whole number from 1 to 4294967295",
            "7: node.addresses: '192.0.2.1' is no list of strings; write a list of 1 to 3 strings, for example [\"192.0.2.1\"]",
            "8: node.votes: 1.5 is no whole number; write a whole number from 0 to 255",
            "9: node.fence: 'x' is no table of options; write { name = \"value\" }",
            "11: quorum.wait_for_all: 1 is neither true nor false; write true or false, without quotes",
            "12: fencing.options: option 'x' is a list; write a string, a whole number, true or false",
        ],
    ),
    "ranges": (
        GOOD.replace("id = 1", "id = 0").replace('"alpha"', f'"{"x" * 33}"') + '[totem]\nport = 65536\n[dlm]\nprotocol = "udp"\n',
        [
            "2: cluster.name: is 33 characters long; at most 32 are allowed",
            "4: node.id: 0 is out of range; write a whole number from 1 to 4294967295",
            "8: totem.port: 65536 is out of range; write a whole number from 1 to 65535",
            "10: dlm.protocol: 'udp' is not among the choices; write one of tcp, sctp",
        ],
    ),
    "a colon in the name": (
        GOOD.replace("alpha", "al:pha"),
        ["2: cluster.name: 'al:pha' cannot be used; use letters, digits, '.', '_' and '-', beginning with a letter or digit"],
    ),
    "duplicates": (
        GOOD + NODE,
        [
            "8: node.id: 1 is also that of the node in line 3; give every node its own id",
            "9: node.name: a is also that of the node in line 3; give every node its own name",
            "10: node.address: 192.0.2.1 is also an address of node a; every address belongs to one node, once",
        ],
    ),
    "the same address, spelled differently": (
        GOOD.replace('address = "192.0.2.1"', 'addresses = ["2001:db8::1", "2001:DB8:0:0::1"]') + '[dlm]\nprotocol = "sctp"\n',
        ["6: node.addresses: 2001:DB8:0:0::1 is also an address of node a; every address belongs to one node, once"],
    ),
    "bad addresses": (
        '[cluster]\nname = "alpha"\n'
        + "".join(
            f'[[node]]\nid = {i}\nname = "n{i}"\naddress = "{a}"\n'
            for i, a in enumerate(("node1", "0.0.0.0", "ff02::1", "fe80::1"), 1)
        ),
        [
            "6: node.address: 'node1' is no IPv4 or IPv6 address; write the address itself: host names are not looked up",
            "10: node.address: 0.0.0.0 is not the address of one machine; write the address that the other nodes reach it at",
            "14: node.address: ff02::1 is not the address of one machine; write the address that the other nodes reach it at",
            "18: node.address: fe80::1 is link-local without an interface; write fe80::1%INTERFACE, or a global address",
        ],
    ),
    "address missing, address twice, two families": (
        '[cluster]\nname = "alpha"\n[[node]]\nid = 1\nname = "a"\n'
        '[[node]]\nid = 2\nname = "b"\naddress = "192.0.2.1"\naddresses = ["192.0.2.2"]\n'
        '[[node]]\nid = 3\nname = "c"\naddress = "2001:db8::1"\n',
        [
            '3: node.address: missing; every node needs one, for example address = "192.0.2.1"',
            "9: node.address: stands beside addresses; keep one of the two",
            "14: node.address: is IPv6, but the first address of node b is not; addresses in the same place of the lists are one network, "
            "so they must be of one family",
        ],
    ),
    "not one address on every network": (
        GOOD.replace('address = "192.0.2.1"', 'addresses = ["192.0.2.1", "198.51.100.1"]')
        + '[[node]]\nid = 2\nname = "b"\naddress = "192.0.2.2"\n[totem]\nmulticast = ["239.1.1.1"]\n',
        ["10: node.address: has 1 of them, but node a has 2; give every node one address on each network, the networks in the same order",
         "12: totem.multicast: has 1 groups, but every node has 2 addresses; give one group for each address, in the same order"],
    ),
    "multicast groups": (
        GOOD.replace('address = "192.0.2.1"', 'addresses = ["192.0.2.1", "198.51.100.1", "2001:db8::1"]')
        + '[totem]\nmulticast = ["239.1.1.1x", "192.0.2.9", "239.1.1.1"]\n',
        ["8: totem.multicast: '239.1.1.1x' is no address; write a multicast group, for example \"239.192.54.5\"",
         "8: totem.multicast: 192.0.2.9 is no multicast group; write one, for example \"239.192.54.5\" or \"ff15::5405\"",
         "8: totem.multicast: is IPv4, but the third addresses of the nodes are not; give a group of their family"],
    ),
    "one bracket": (
        '[cluster]\nname = "alpha"\n[node]\nid = 1\n',
        [
            "3: node: is a single table; write [[node]] with two brackets, once per node",
            "3: node: there is no node; add one [[node]] with id, name and address for every machine",
        ],
    ),
    "hold against token, lease and retransmission": (
        GOOD + "[totem]\ntoken_ms = 100\nhold_ms = 1001\ndetect_ms = 50\n",
        [
            "7: totem.token_retransmit_ms: 120 leaves no second try within token_ms (100); set it to at most 50",
            "8: totem.token_ms: 100 is less than five times hold_ms (1001), so an idle ring would look dead; "
            "set token_ms to at least 5005, or hold_ms to at most 20",
            "9: totem.hold_ms: 1001 is more than a fifth of lease_ms (5000), so an idle ring would lose its lease; "
            "set hold_ms to at most 1000",
        ],
    ),
    "a lease that one re-formation could eat": (
        GOOD + "[lease]\nlease_ms = 4999\n",
        ["8: lease.lease_ms: 4999 is less than five re-formations (token_ms + consensus_ms = 1000), so one lost token could end in a "
         "reset; set lease_ms to at least 5000"],
    ),
    "two_node that cannot be": (
        GOOD + "[quorum]\ntwo_node = true\nwait_for_all = false\nexpected_votes = 1\nlast_man_standing = true\n"
        "fence_delay_node = 2\n[fencing]\nagent = 'x'\n",
        [
            "8: quorum.two_node: is for two nodes with one vote each; remove it: more nodes, or uneven votes, need no exception",
            "9: quorum.wait_for_all: is implied by two_node: a node that boots alone would fence the one that runs; remove the line",
            "10: quorum.expected_votes: does not fit two_node, which expects 2; leave it out",
            "11: quorum.last_man_standing: has nothing to do with two_node set: one of two is quorate anyway; keep one of the two",
            "12: quorum.fence_delay_node: there is no node 2; write the id of one of the two nodes, or leave it out",
        ],
    ),
    "the last man of a cold start": (
        GOOD + "[quorum]\nwait_for_all = false\nlast_man_standing = true\n",
        ["8: quorum.wait_for_all: last_man_standing needs it: nodes whose vote was withdrawn while they were down do not know it, and "
         "could start a second cluster; remove the line"],
    ),
    "who breaks the tie": (
        GOOD + '[quorum]\nauto_tie_breaker_node = "1 7"\n',
        [
            "8: quorum.auto_tie_breaker_node: says nothing without auto_tie_breaker; set auto_tie_breaker = true, or remove the line",
            "8: quorum.auto_tie_breaker_node: there is no node 7; known are 1",
        ],
    ),
    "no tie-breaker at all": (
        GOOD + '[quorum]\nauto_tie_breaker = true\nauto_tie_breaker_node = "middle"\n',
        ["9: quorum.auto_tie_breaker_node: 'middle' cannot be used; use lowest, highest, or node ids with a space between them"],
    ),
    "fewer votes expected than there are": (
        GOOD + "votes = 4\n[quorum]\nexpected_votes = 3\n",
        ["9: quorum.expected_votes: 3 is less than the 4 votes of all nodes, so two halves could both be quorate; "
         "leave it out, or set at least 4"],
    ),
    "never quorate": (
        GOOD + "[quorum]\nexpected_votes = 2\n",
        ["8: quorum.expected_votes: 2 asks for 2 votes to be quorate, and all nodes together have 1; leave it out, or set at most 1"],
    ),
    "no votes": (GOOD + "votes = 0\n", ["7: node.votes: no node has a vote; give at least one node votes = 1"]),
    "engine": (
        GOOD.replace("[[node]]", 'engine = "totm"\n[[node]]'),
        ["3: cluster.engine: 'totm' is not installed; did you mean 'totem'?"],
    ),
    "fencing": (
        GOOD + '[fencing]\nagent = "./fence"\nretry_ms = 40000\n',
        [
            "7: fencing.retry_max_ms: 30000 is less than retry_ms (40000); set it to at least 40000",
            "8: fencing.agent: './fence' is a relative path; write an absolute path, or a bare name to be found in PATH",
        ],
    ),
    "options of no agent": (
        GOOD + '[fencing.options]\nip = "x"\n',
        ['7: fencing.options: there are options but no agent; name the agent, for example agent = "fence_ipmilan"'],
    ),
    "control characters": (
        GOOD.replace('"a"', '"a\\u001b[2J"') + 'fence = { plug = "1\\nport=2" }\n',
        [
            "5: node.name: 'a\\x1b[2J' holds a control character; remove it",
            "7: node.fence: option 'plug' holds a control character; remove it",
        ],
    ),
}


TWO = GOOD + '[[node]]\nid = 2\nname = "b"\naddress = "192.0.2.2"\n[quorum]\ntwo_node = true\n'


def test_two_nodes_need_a_fence_that_decides_or_a_tie_breaker() -> None:
    """SAFETY S12: with both halves quorate nobody's lease runs out, so nothing may count on it."""
    (problem,) = problems(TWO)
    assert problem == ("12: quorum.two_node: needs a fence that decides which half goes on, and there is none; name a fence agent, or set "
                       "auto_tie_breaker = true, with which one of the two nodes alone goes on")
    assert config(TWO + '[fencing]\nagent = "fence_x"\n').quorum.two_node
    method = TWO.replace("[quorum]", "[[node.method]]\ndevices = ['self']\n[quorum]")
    for text in (method, TWO + "[lease]\nself_fencing = 'on'\n"):
        assert any("self-fencing proves nothing with two_node" in p for p in problems(text)), problems(text)
    assert not ClusterConfig("x", (), quorum=QuorumConfig(two_node=True), lease=LeaseConfig(self_fencing="on")).self_fencing
    assert config(TWO + "auto_tie_breaker = true\n").quorum.auto_tie_breaker


WITNESS = GOOD + '[[node]]\nid = 2\nname = "b"\naddress = "192.0.2.2"\n[quorum.witness]\n'


def test_a_witness_has_an_address_of_its_own_and_defaults_for_the_rest() -> None:
    made = config(WITNESS + 'address = "192.0.2.9"\n')
    assert made.quorum.witness == WitnessConfig("192.0.2.9", 5406, 3000)
    assert made.self_fencing and not config(WITNESS[: WITNESS.index("[quorum")]).self_fencing


@pytest.mark.parametrize(("more", "expected"), [
    ("", ["11: quorum.witness.address: missing; add it: address (an IPv4 or IPv6 literal) of the witness"]),
    ('address = "outside"', ["12: quorum.witness.address: 'outside' is no IPv4 or IPv6 address; "
                             "write the address itself: host names are not looked up"]),
    ('address = "192.0.2.2"', ["12: quorum.witness.address: 192.0.2.2 is node b's: it would fall silent together with what it must "
                               "decide about; run the witness on a machine outside of the cluster"]),
    ('address = "239.1.1.1"', ["12: quorum.witness.address: 239.1.1.1 is not the address of one machine; "
                               "write the address that all nodes reach it at"]),
    ('address = "192.0.2.9"\ntimeout_ms = 10', ["13: quorum.witness.timeout_ms: 10 is out of range; write a whole number from 500 to "
                                                "600000"]),
    ('address = "192.0.2.9"\n[quorum]\nauto_tie_breaker = true', ["14: quorum.auto_tie_breaker: does not fit a witness: a fixed node "
                                                                   "already breaks the tie; keep one of the two"]),
    ('address = "192.0.2.9"\n[quorum]\nlast_man_standing = true', [
        "14: quorum.last_man_standing: does not fit a witness: votes are withdrawn by a majority of nodes only, and here half of them may "
        "go on; keep one of the two"]),
    ('address = "192.0.2.9"\n[quorum]\ntwo_node = true\n[fencing]\nagent = "x"', [
        "14: quorum.two_node: does not fit a witness: with it one of two is quorate without asking anybody; keep one of the two"]),
])
def test_a_witness_that_cannot_be(more: str, expected: list[str]) -> None:
    assert problems(WITNESS + more + "\n") == expected


def test_one_node_needs_no_witness() -> None:
    text = GOOD + '[quorum.witness]\naddress = "192.0.2.9"\n'
    assert problems(text) == ["7: quorum.witness: there is one node, which needs nobody to decide; remove the section"]


@pytest.mark.parametrize("case", WRONG)
def test_every_error_at_once_with_line_and_remedy(case: str) -> None:
    text, expected = WRONG[case]
    assert problems(text) == expected


@pytest.mark.parametrize(
    ("section", "good", "bad", "key"),
    [
        ("totem", "detect_ms = 50\ntoken_retransmit_ms = 50\ntoken_ms = 250",
         "detect_ms = 50\ntoken_retransmit_ms = 50\ntoken_ms = 249", "token_ms"),
        ("totem", "token_ms = 600\nhold_ms = 120", "token_ms = 600\nhold_ms = 121", "token_ms"),
        ("totem", "detect_ms = 50\ntoken_ms = 240\nhold_ms = 10", "detect_ms = 50\ntoken_ms = 239\nhold_ms = 10", "token_retransmit_ms"),
        ("totem", "join_ms = 200", "join_ms = 201", "join_ms"),
        ("totem", "detect_ms = 285", "detect_ms = 286", "detect_ms"),
        ("totem", "detect_ms = 280\ntoken_ms = 560", "detect_ms = 280\ntoken_ms = 559", "detect_ms"),
        ("lease", "lease_ms = 5000", "lease_ms = 4999", "lease_ms"),
        ("quorum", "expected_votes = 1", "expected_votes = 2", "expected_votes"),
        ("fencing", "retry_max_ms = 1000", "retry_max_ms = 999", "retry_max_ms"),
    ],
)
def test_where_a_rule_begins_to_hold(section: str, good: str, bad: str, key: str) -> None:
    config(f"{GOOD}[{section}]\n{good}\n")
    (problem,) = problems(f"{GOOD}[{section}]\n{bad}\n")
    assert f": {section}.{key}: " in problem


def test_an_idle_ring_turns_five_times_within_a_lease() -> None:
    """SAFETY S9, alone: a short lease that every other rule allows."""
    timing = "[totem]\ntoken_ms = 1000\nconsensus_ms = 200\ndetect_ms = 100\nhold_ms = {}\n[lease]\nlease_ms = 6000\n"
    assert config(GOOD + timing.format(200)).totem.hold_ms == 200
    assert config(GOOD + timing.format(200).replace("6000", "600000")).lease.lease_ms == 600000
    found = problems(GOOD + timing.format(1201))
    assert [p.partition(": ")[2].partition(":")[0] for p in found] == ["totem.token_ms", "totem.hold_ms"]
    assert [p.partition(": ")[2].partition(":")[0] for p in problems(GOOD + timing.format(1200))] == ["totem.token_ms"]


def test_lines_count_through_comments_and_strings() -> None:
    text = '# c\n[cluster]\nname = """\nalpha"""  # [x]\n' + NODE + "votes = 'x'\n"
    assert problems(text) == ["9: node.votes: 'x' is no whole number; write a whole number from 0 to 255"]
    addresses = 'addresses = [\n  "192.0.2.1",\n  "bad",\n]'
    text = '[cluster]\nname = "alpha"\nengine = """\\\n   totem"""\n' + NODE.replace('address = "192.0.2.1"', addresses)
    assert problems(text + '[dlm]\nprotocol="sctp"\n') == [
        "10: node.addresses: 'bad' is no IPv4 or IPv6 address; write the address itself: host names are not looked up"
    ]


def test_the_example_loads() -> None:
    got = load(ROOT / "etc" / "cluster.toml.example", with_key=False)
    assert [n.name for n in got.nodes] == ["node1", "node2", "node3"]
    assert got.nodes[2].fence == {"plug": "3"}


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    with pytest.raises(ConfigError, match=r"c.toml: cannot be read: No such file"):
        load(path)
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)
    path.write_bytes(b"# a\n# b\xff\n")
    with pytest.raises(ConfigError, match=r"c.toml:2: not UTF-8"):
        load(path)
    path.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        load(path)


def write(tmp_path: Path, key: bytes | None, mode: int = 0o600) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(GOOD.replace("[[node]]", 'key_file = "the.key"\n[[node]]'))
    if key is not None:
        (tmp_path / "the.key").write_bytes(key)
        (tmp_path / "the.key").chmod(mode)
    return path


@pytest.mark.parametrize("text", [b"ab" * 32, b"AB" * 32 + b"\n", b"\xab" * 32])
def test_a_key_beside_the_configuration(tmp_path: Path, text: bytes) -> None:
    assert load(write(tmp_path, text)).key == b"\xab" * 32


@pytest.mark.parametrize(
    ("key", "mode", "expected"),
    [
        (None, 0, "does not exist; make it once with `vcs keygen "),
        (b"ab" * 31, 0o600, "holds no key of 32 bytes"),
        (b"zz" * 32, 0o600, "holds no key of 32 bytes"),
        (b"", 0o600, "holds no key of 32 bytes"),
        (b"ab" * 32, 0o644, "has mode 0644, so others can read or change the key; chmod 600"),
        (b"ab" * 32, 0o620, "has mode 0620"),
    ],
)
def test_keys_that_are_none(tmp_path: Path, key: bytes | None, mode: int, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, key, mode))
    (problem,) = caught.value.problems
    assert re.match(r".*c\.toml:3: cluster\.key_file: .*the\.key " + re.escape(expected), problem)


def test_an_engine_that_sends_nothing_needs_no_key(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(GOOD.replace("[[node]]", 'engine = "static"\n[[node]]'))
    assert load(path).key == b""


def test_keygen_makes_a_key_once(tmp_path: Path) -> None:
    path = tmp_path / "k"
    keyfile.write_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = keyfile.read_keys(path)
    assert [len(key) for key in first] == [32]
    with pytest.raises(VcsError, match="exists and is left as it is"):
        keyfile.write_key(path)
    assert keyfile.read_keys(path) == first
    keyfile.write_key(tmp_path / "other")
    assert keyfile.read_keys(tmp_path / "other") != first
    with pytest.raises(VcsError, match="cannot be made: No such file"):
        keyfile.write_key(tmp_path / "none" / "k")


# --- the schema -------------------------------------------------------------------------------------------------------


def test_schema_and_model_say_the_same() -> None:
    sections = {"nodes", "key", "more_keys", "fence_devices"} | {s.name for s in schema.SECTIONS if s.name not in ("cluster", "node")}
    for sec in schema.SECTIONS:
        in_schema = {k.field or k.name for k in sec.keys if k.field is not None}
        in_model = {f.name for f in dataclasses.fields(sec.model)}
        assert in_schema == in_model - (sections if sec.name == "cluster" else set()), sec.name
        for key in sec.keys:
            default = schema.default_of(sec, key)
            assert (default is None) == (key.required or key.name in ("address", "addresses", "witness")), key.name
            if key.kind is schema.Kind.INT and default is not None:
                assert isinstance(default, int) and key.low <= default <= key.high, key.name


def test_the_manual_holds_the_table_of_the_schema() -> None:
    text = (ROOT / "docs" / "man" / "cluster.toml.5.md").read_text()
    held = text.partition("<!-- begin: vcs/config/schema.py -->\n")[2].partition("<!-- end -->")[0]
    assert held == schema.reference(), "run `make man-table`"


# --- anything at all --------------------------------------------------------------------------------------------------

names = st.sampled_from([*(s.name for s in schema.SECTIONS), *(k.name for s in schema.SECTIONS for k in s.keys), "x"])
values: st.SearchStrategy[str] = st.recursive(
    st.sampled_from(
        ["1", "-1", "0", "true", '"a"', "'192.0.2.1'", "1.5", "inf", "1979-05-27", '"""x\n"y"""', "'''\n[x]'''", "9" * 5000, "0xff"]
    ),
    lambda v: st.lists(v, max_size=3).map(lambda i: f"[{', '.join(i)}]")
    | st.lists(v, max_size=3).map(lambda i: "[\n" + ",\n".join(i) + ",\n]" if i else "[ # none\n]")
    | st.dictionaries(names, v, max_size=2).map(lambda d: "{" + ", ".join(f"{k} = {x}" for k, x in d.items()) + "}"),
    max_leaves=5,
)
statements = st.one_of(
    st.builds("{} = {}".format, names, values),
    st.builds("{}.{} = {}".format, names, names, values),
    st.builds('"{}" = {} # "c" = [[{{'.format, names, values),
    names.map("[{}]".format),
    names.map("[[{}]]".format),
    st.builds("[{}.{}]".format, names, names),
    st.builds("[[ {} . '{}' ]]".format, names, names),
    st.just("# [x]"),
    st.just(NODE),
    st.just(GOOD),
)
documents = st.lists(statements, max_size=8).map("\n".join)


@settings(max_examples=150, deadline=None)
@given(documents | st.text(max_size=200))
@example("a = " + "[" * 100_000)
@example("[" * 1000)
@example(GOOD)
@example('[[node]]\n[node.fence]\n[[node.fence.x]]\n')
def test_no_text_makes_a_traceback(text: str) -> None:
    try:
        loads(text, "c", with_key=False)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.startswith("c:") and "\n" not in problem


def leaves(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below: list[tuple[str | int, ...]] = []
    if isinstance(value, dict):
        below = [p for k, v in value.items() for p in leaves(v, (*path, k))]
    if isinstance(value, list):
        below = [p for i, v in enumerate(value) for p in leaves(v, (*path, i))]
    return [*([path] if path else []), *below]


@settings(max_examples=150, deadline=None)
@given(documents)
@example("a.b.c = 1\n[x]\n'y.z' = [1,\n[2,\n3]]\n[[t]]\nu = { v = '#' }\n[[t]]\nu = \"\"\"\n\"\"\"\"\"\n")
def test_the_scanner_finds_what_tomllib_finds(text: str) -> None:
    """Every path that tomllib has gets a line, no other does, and on that line stands the last key of the path."""
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    found = key_lines(text)
    assert set(found) == set(leaves(tree))
    lines = text.split("\n")
    for path, line in found.items():
        if isinstance(path[-1], str):
            assert path[-1] in lines[line - 1]
