# SPDX-License-Identifier: GPL-2.0-only
"""The C that is made from vcs.yaml: the uapi header, policies, operations and what a command needs."""

from __future__ import annotations

from spec import NOTICE, OPTIONAL, OPTIONAL_IN, PROVIDERS, SCALARS, Spec, SpecError, Table, lower, upper

POLICY_MAX = (1 << 15) - 1
"Of min and max in struct nla_policy; what is above wraps to a negative number, and a reader of the policy draws a warning from the kernel."
CREATES = ("cluster-add",)
"Commands whose handle names what is not there yet."
SEATED = ("lease-renew", "lease-freeze", "view-set", "group-stop", "group-start", "group-finish", "group-left", "fenced")
"Commands of the provider: their session is that of the seat."
HOLDING = ("group-ack", "group-leave")
"Commands of a consumer: their session is that of the group."
PREPARING = ("view-set", "group-stop", "group-start", "group-finish")
"Those of the two that allocate first, and lock the cluster and ask for admission themselves."


def c_comment(text: str, indent: str = "") -> list[str]:
    """A block comment of at most 80 columns (the kernel's width)."""
    lines, line = [], ""
    for word in text.split():
        if line and len(indent) * 8 + len(line) + len(word) > 74:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    if len(lines) == 1:
        return [f"{indent}/* {lines[0]} */"]
    return [f"{indent}/*", *(f"{indent} * {x}" for x in lines), f"{indent} */"]


def c_banner(licence: str, header: bool) -> list[str]:
    mark = f"/* SPDX-License-Identifier: {licence} */" if header else f"// SPDX-License-Identifier: {licence}"
    return [mark, f"/* {NOTICE} */", ""]


def uapi(spec: Spec) -> str:
    guard = f"_UAPI_{upper(spec.header.replace('/', '_').replace('.', '_'))}"
    out = c_banner("GPL-2.0 WITH Linux-syscall-note", True)
    out += [f"#ifndef {guard}", f"#define {guard}", ""]
    out += [f'#define {spec.c_name}\t"{spec.name}"', f"#define {spec.c_version}\t{spec.version}", ""]
    out += [f"#define {upper(spec.name)}_{upper(n)}\t{v}" for n, v in spec.consts.items()]
    for name, enum in spec.enums.items():
        out += ["", *(c_comment(enum["doc"]) if enum["doc"] else []), f"enum {spec.name}_{lower(name)} {{"]
        for i, entry in enumerate(enum["entries"]):
            if "doc" in entry:
                out += c_comment(entry["doc"], "\t")
            start = f" = {entry['value']}" if enum["flags"] or (i == 0 and entry["value"]) else ""
            out.append(f"\t{upper(enum['prefix'] + entry['name'])}{start},")
        out.append("};")
    for table in spec.sets.values():
        prefix = upper(table["prefix"])
        out += ["", f"enum {lower(table['enum'])} {{"]
        for i, attr in enumerate(table["attributes"].values()):
            if attr["doc"]:
                out += c_comment(attr["doc"], "\t")
            out.append(f"\t{prefix}{upper(attr['name'])}{' = 1' if i == 0 else ''},")
        out += ["", f"\t__{prefix}MAX,", f"\t{prefix}MAX = (__{prefix}MAX - 1)", "};"]
    prefix = upper(spec.cmd_prefix)
    out += ["", "enum {"]
    for op in spec.ops:
        out += c_comment(op["doc"], "\t")
        out.append(f"\t{prefix}{upper(op['name'])}{' = 1' if op['value'] == 1 else ''},")
    out += ["", f"\t__{prefix}MAX,", f"\t{prefix}MAX = (__{prefix}MAX - 1)", "};", ""]
    out += [f'#define {upper(spec.name)}_MCGRP_{upper(g)}\t"{g}"' for g in spec.mcast]
    return "\n".join([*out, "", f"#endif /* {guard} */", ""])


def c_policy(spec: Spec, attr: Table) -> str:
    """The initializer of one attribute in a policy table."""
    kind, checks = attr["type"], attr.get("checks", {})
    if "enum" in attr:
        enum = spec.enums[attr["enum"]]
        values = [e["value"] for e in enum["entries"]]
        if enum["flags"]:
            return f"NLA_POLICY_MASK({SCALARS[kind]}, {hex(sum(values))})"
        return f"NLA_POLICY_RANGE({SCALARS[kind]}, {values[0]}, {values[-1]})"
    if kind in SCALARS:
        if max(checks.get("min", 0), checks.get("max", 0)) > POLICY_MAX:
            raise SpecError(f"attribute {attr['name']}: a bound in a policy is a signed 16-bit number")
        if "min" in checks and "max" in checks:
            return f"NLA_POLICY_RANGE({SCALARS[kind]}, {checks['min']}, {checks['max']})"
        if "min" in checks:
            return f"NLA_POLICY_MIN({SCALARS[kind]}, {checks['min']})"
        if "max" in checks:
            return f"NLA_POLICY_MAX({SCALARS[kind]}, {checks['max']})"
        return f"{{ .type = {SCALARS[kind]}, }}"
    if kind == "string":
        return f"{{ .type = NLA_NUL_STRING, .len = {checks['max-len']}, }}"
    if kind == "binary" and "min-len" in checks:
        return f"NLA_POLICY_RANGE(NLA_BINARY, {checks['min-len']}, {checks['max-len']})"
    if kind == "binary":
        return f"{{ .type = NLA_BINARY, .len = {checks['max-len']}, }}"
    if kind == "nest" and attr["nested-attributes"] in PROVIDERS:
        return "{ .type = NLA_NESTED, }"
    if kind == "nest":
        return f"NLA_POLICY_NESTED({spec.name}_{lower(attr['nested-attributes'])}_nl_policy)"
    raise SpecError(f"attribute {attr['name']}: {kind} in a request")


def nests_of(spec: Spec, name: str) -> list[str]:
    """The attribute sets in nests of the set ``name``, in the order of the spec."""
    nested = {a.get("nested-attributes") for a in spec.sets[name]["attributes"].values()}
    return [n for n in spec.sets if n in nested]


def nested_sets(spec: Spec) -> list[str]:
    """Those that the switch itself reads."""
    return [n for n in nests_of(spec, spec.name) if n not in PROVIDERS]


def text_enums(spec: Spec) -> list[tuple[str, Table]]:
    """Enumerations whose values have a word each."""
    return [(n, e) for n, e in spec.enums.items() if not e["flags"]]


def c_policies(spec: Spec, name: str) -> list[str]:
    """The policy of every attribute of a set."""
    table = spec.sets[name]
    prefix = upper(table["prefix"])
    out = [f"static const struct nla_policy {spec.name}_{lower(name)}_nl_policy[{prefix}MAX + 1] = {{"]
    out += [f"\t[{prefix}{upper(a['name'])}] = {c_policy(spec, a)}," for a in table["attributes"].values() if a["type"] != "pad"]
    return [*out, "};"]


def heartbeat_policy(spec: Spec) -> str:
    """The policies of the module that is the provider `heartbeat`."""
    guard = f"_{upper(spec.name)}_HEARTBEAT_POLICY_H"
    out = [*c_banner("GPL-2.0", True), f"#ifndef {guard}", f"#define {guard}", "", "#include <net/netlink.h>", ""]
    out += [f"#include <uapi/{spec.header}>"]
    for name in (*nests_of(spec, "heartbeat"), "heartbeat"):
        out += ["", *c_policies(spec, name)]
    return "\n".join([*out, "", f"#endif /* {guard} */", ""])


def members_of(spec: Spec, name: str) -> list[tuple[str, str, str]]:
    """(attribute, its constant, its type) of a nest; all are numbers."""
    table = spec.sets[name]
    return [(a["name"], upper(table["prefix"] + a["name"]), a["type"]) for a in table["attributes"].values() if a["type"] != "pad"]


def c_put(spec: Spec, name: str) -> list[str]:
    """The function that puts a nest into a message."""
    kind, prefix = f"{spec.name}_{lower(name)}", upper(spec.sets[name]["prefix"])
    puts = []
    for attr, const, type_ in members_of(spec, name):
        if type_ == "u64":
            puts.append(f"nla_put_u64_64bit(skb, {const}, v->{lower(attr)}, {prefix}PAD)")
        else:
            puts.append(f"nla_put_u32(skb, {const}, v->{lower(attr)})")
    out = [f"int {kind}_put(struct sk_buff *skb, int attr, const struct {kind} *v)", "{"]
    out += ["\tstruct nlattr *nest = nla_nest_start(skb, attr);", "", "\tif (!nest)", "\t\treturn -EMSGSIZE;"]
    out += [f"\tif ({puts[0]} ||", *(f"\t    {p} ||" for p in puts[1:-1]), f"\t    {puts[-1]}) {{"]
    out += ["\t\tnla_nest_cancel(skb, nest);", "\t\treturn -EMSGSIZE;", "\t}", "\tnla_nest_end(skb, nest);", "\treturn 0;", "}"]
    return out


def c_parse(spec: Spec, name: str) -> list[str]:
    """The function that reads a nest."""
    kind, prefix = f"{spec.name}_{lower(name)}", upper(spec.sets[name]["prefix"])
    out = [f"int {kind}_parse(const struct nlattr *nest, struct {kind} *v,", "\t\t     struct netlink_ext_ack *extack)", "{"]
    out += [f"\tstruct nlattr *tb[{prefix}MAX + 1];"]
    out += [f"\tint err = nla_parse_nested(tb, {prefix}MAX, nest, {kind}_nl_policy, extack);", "", "\tif (err)", "\t\treturn err;"]
    attrs = members_of(spec, name)
    missing = [f"!tb[{const}]" for attr, const, _ in attrs if attr not in OPTIONAL]
    out += [f"\tif ({' || '.join(missing)}) {{", f'\t\tNL_SET_ERR_MSG_ATTR(extack, nest, "an attribute of the {name} is missing");']
    out += ["\t\treturn -EINVAL;", "\t}"]
    for attr, const, type_ in attrs:
        indent = "\t"
        if attr in OPTIONAL:
            out.append(f"\tif (tb[{const}])")
            indent = "\t\t"
        out.append(f"{indent}v->{lower(attr)} = nla_get_{type_}(tb[{const}]);")
    return [*out, "\treturn 0;", "}"]


def c_commands(spec: Spec) -> list[str]:
    """The table of what each command needs."""
    out = [f"const struct {spec.name}_nl_command {spec.name}_nl_commands[{upper(spec.cmd_prefix)}MAX + 1] = {{"]
    for op in spec.requests():
        if op["do"] is None:
            continue
        prefix = upper(spec.sets[op["set"]]["prefix"])
        bits = [f"BIT_ULL({prefix}{upper(n)})" for n in op["do"] if n not in OPTIONAL and (op["name"], n) not in OPTIONAL_IN]
        out += [f"\t[{upper(spec.cmd_prefix + op['name'])}] = {{", f"\t\t.call\t\t= {spec.name}_nl_{lower(op['name'])},"]
        if bits:
            out += ["\t\t.required\t= " + " |\n\t\t\t\t  ".join(bits) + ","]
        out += ["\t\t.cluster\t= true,"] if "handle" in op["do"] and op["name"] not in CREATES else []
        who = "SEAT" if op["name"] in SEATED else "HOLDER" if op["name"] in HOLDING else ""
        out += [f"\t\t.who\t\t= {upper(spec.name)}_NL_{who},"] if who else []
        out += ["\t\t.locked\t\t= true,"] if who and op["name"] not in PREPARING else []
        out += ["\t\t.answers\t= true,"] if op["do_reply"] else []
        out += ["\t\t.open\t\t= true,"] if op["name"].endswith("-get") else []
        out.append("\t},")
    return [*out, "};"]


def genl_h(spec: Spec) -> str:
    guard = f"_LINUX_{upper(spec.name)}_GEN_H"
    out = c_banner("GPL-2.0", True)
    out += [f"#ifndef {guard}", f"#define {guard}", "", "#include <net/genetlink.h>", "#include <net/netlink.h>", ""]
    out += [f"#include <linux/{spec.name}.h>", "", f"struct {spec.name}_from;", ""]
    out += c_comment("Whose session a command carries.")
    out += [f"enum {spec.name}_nl_who {{", *(f"\t{upper(spec.name)}_NL_{who}," for who in ("ANYBODY", "SEAT", "HOLDER")), "};", ""]
    out += c_comment("What a command needs, and the function that carries it out.")
    out += [f"struct {spec.name}_nl_command {{", f"\tint (*call)(struct {spec.name}_from *from);"]
    out += ["\tu64 required;\t/* attributes, as bits */", "\tbool cluster;\t/* the handle names one that is there */"]
    out += [f"\tenum {spec.name}_nl_who who;", "\tbool locked;\t/* called under the cluster's lock, admitted */"]
    out += ["\tbool answers;", "\tbool open;\t/* to everybody */", "};", ""]
    out += [f"extern const struct {spec.name}_nl_command {spec.name}_nl_commands[{upper(spec.cmd_prefix)}MAX + 1];"]
    out += [f"extern const struct genl_ops {spec.name}_nl_ops[{len(spec.requests())}];"]
    out += [f"extern const char *const {spec.name}_{lower(n)}_text[{e['entries'][-1]['value'] + 1}];" for n, e in text_enums(spec)]
    out.append("")
    for name in nested_sets(spec):
        kind = f"{spec.name}_{lower(name)}"
        out += [f"int {kind}_put(struct sk_buff *skb, int attr, const struct {kind} *v);"]
        out += c_comment("What is absent and may be stays as it is.")
        out += [f"int {kind}_parse(const struct nlattr *nest, struct {kind} *v,", "\t\t     struct netlink_ext_ack *extack);", ""]
    out.append(f"int {spec.name}_nl_doit(struct sk_buff *skb, struct genl_info *info);")
    for op in spec.requests():
        name = f"{spec.name}_nl_{lower(op['name'])}"
        if op["do"] is not None:
            out.append(f"int {name}(struct {spec.name}_from *from);")
        if op["dump"] is not None:
            out.append(f"int {name}_dumpit(struct sk_buff *skb, struct netlink_callback *cb);")
        out += [f"int {lower(op[f])}(struct netlink_callback *cb);" for f in ("start", "done") if op[f]]
    out += ["", "enum {", *(f"\t{upper(spec.name)}_NLGRP_{upper(g)}," for g in spec.mcast), "};"]
    return "\n".join([*out, "", f"#endif /* {guard} */", ""])


def genl_c(spec: Spec) -> str:
    out = c_banner("GPL-2.0", False)
    out += ['#include "genl.h"']
    for name in nested_sets(spec):
        out += ["", *c_policies(spec, name), "", *c_put(spec, name), "", *c_parse(spec, name)]
    for name, enum in text_enums(spec):
        size = enum["entries"][-1]["value"] + 1
        out += ["", f"const char *const {spec.name}_{lower(name)}_text[{size}] = {{"]
        out += [f'\t[{upper(enum["prefix"] + e["name"])}] = "{e["name"]}",' for e in enum["entries"]]
        out.append("};")
    out += ["", *c_commands(spec)]
    ops = [f"const struct genl_ops {spec.name}_nl_ops[{len(spec.requests())}] = {{"]
    for op in spec.requests():
        prefix = upper(spec.sets[op["set"]]["prefix"])
        names, stem = spec.request(op), f"{spec.name}_nl_{lower(op['name'])}"
        policy = f"{spec.name}_{lower(op['name'])}_nl_policy"
        if names:
            out += ["", f"static const struct nla_policy {policy}[{prefix}{upper(names[-1])} + 1] = {{"]
            attributes = spec.sets[op["set"]]["attributes"]
            out += [f"\t[{prefix}{upper(n)}] = {c_policy(spec, attributes[n])}," for n in names]
            out.append("};")
        ops += ["\t{", f"\t\t.cmd\t\t= {upper(spec.cmd_prefix + op['name'])},"]
        if op["do"] is not None:
            ops.append(f"\t\t.doit\t\t= {spec.name}_nl_doit,")
        if op["dump"] is not None:
            ops.append(f"\t\t.dumpit\t\t= {stem}_dumpit,")
        ops += [f"\t\t.{f}\t\t= {lower(op[f])}," for f in ("start", "done") if op[f]]
        if names:
            ops += [f"\t\t.policy\t\t= {policy},", f"\t\t.maxattr\t= {prefix}{upper(names[-1])},"]
        ops.append("\t},")
    return "\n".join([*out, "", *ops, "};", ""])
