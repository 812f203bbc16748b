# SPDX-License-Identifier: GPL-2.0-only
"""What is made from observe.yaml: the files of sysfs, the tracepoints, and the page that explains them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from c_code import c_comment
from spec import lower

OBSERVE = Path("kmod/spec/observe.yaml")
NOTICE = f"made from {OBSERVE} by `make gen`; do not edit"
TEXT_MAX = 96
TYPES = {"u32": ("%u", "__field(u32, {})"), "u64": ("%llu", "__field(u64, {})"), "int": ("%d", "__field(int, {})"),
         "name": ("%s", "__array(char, {}, VCS_NAME_MAX + 1)"), "text": ("%s", f"__array(char, {{}}, {TEXT_MAX})")}  # fmt: skip
"Type of a tracepoint's field -> how it is printed and declared. Names are fixed arrays: usable as BPF keys, the same on every kernel."
SIZES = {"name": "VCS_NAME_MAX + 1", "text": str(TEXT_MAX)}
Table = dict[str, Any]


def load(root: Path) -> Table:
    raw: Table = yaml.safe_load((root / OBSERVE).read_text())
    return raw


# --- sysfs -------------------------------------------------------------------------------------------------------------


def shown(file: Table) -> str:
    """The C expression that shows a file's value."""
    if "call" in file:
        return str(file["call"])
    if "enum" in file:
        return f'sysfs_emit(buf, "%s\\n",\n\t\t\t  vcs_{lower(file["enum"])}_text[{file["value"]}])'
    line = f'sysfs_emit(buf, "{file["format"]}\\n", {file["value"]})'
    return line if len(line) < 75 else line.replace('", ', '",\n\t\t\t  ', 1)


def file_c(folder: Table, file: Table) -> list[str]:
    """A file's show function, and the attribute."""
    stem, uses = f"{folder['name']}_{file['name']}", shown(file)
    kind, name = folder.get("object", ("", ""))
    begin = f"static ssize_t show_{stem}("
    align = "\t" * (len(begin) // 8) + " " * (len(begin) % 8)
    of_view = bool(re.search(r"\bv\b", uses))
    out = ["", f"{begin}struct kobject *kobj,", f"{align}struct kobj_attribute *attr, char *buf)", "{"]
    if of_view or (name and re.search(rf"\b{name}\b", uses)):
        out += [f"\t{kind} *{name} = container_of(kobj, {kind}, kobj);", *([] if of_view else [""])]
    if of_view:
        out += ["\tconst struct vcs_view *v;", "\tssize_t n;", "", "\trcu_read_lock();", "\tv = rcu_dereference(c->view);"]
        out += [f"\tn = {uses};", "\trcu_read_unlock();", "\treturn n;"]
    else:
        out.append(f"\treturn {uses};")
    out += ["}", "", f"static struct kobj_attribute attr_{stem} = {{"]
    return [*out, f'\t.attr = {{ .name = "{file["name"]}", .mode = 0444 }}, .show = show_{stem},', "};"]


def sysfs_files(observe: Table) -> str:
    out = ["/* SPDX-License-Identifier: GPL-2.0 */", f"/* {NOTICE} */"]
    for folder in observe["sysfs"]:
        name = folder["name"]
        for file in folder["files"]:
            out += file_c(folder, file)
        out += ["", f"static struct attribute *{name}_attrs[] = {{"]
        out += [f"\t&attr_{name}_{file['name']}.attr," for file in folder["files"]]
        out += ["\tNULL", "};", "", f"static const struct attribute_group {name}_dir = {{"]
        below = folder["path"].rsplit("/", 1)[-1]
        if "/" in folder["path"] and not below.startswith("<"):
            out.append(f'\t.name = "{below}",')
        out += [f"\t.attrs = {name}_attrs,", "};"]
    return "\n".join([*out, ""])


# --- tracepoints -------------------------------------------------------------------------------------------------------


def printed(point: Table) -> tuple[str, list[str]]:
    """Format and arguments of a class, without the cluster."""
    if "print" in point:
        text, *names = point["print"]
        return text, [f"__entry->{n}" if "&" not in n else f"!!(__entry->{n})" for n in names]
    text = " ".join(f"{name}={TYPES[kind][0]}" for kind, name, _ in point["fields"])
    return text, [f"__entry->{name}" for _, name, _ in point["fields"]]


def point_c(point: Table) -> list[str]:
    about = point.get("about")
    fields = [TYPES[kind][1].format(name) for kind, name, _ in point["fields"]]
    assign = [f"strscpy(__entry->{name}, {value}, {SIZES[kind]});" if kind in SIZES else f"__entry->{name} = {value};"
              for kind, name, value in point["fields"]]  # fmt: skip
    text, args = printed(point)
    if about:
        fields = ["__field(u32, cluster)", "__array(char, handle, VCS_NAME_MAX + 1)", *fields]
        assign = [f"__entry->cluster = ({about})->id;", f"strscpy(__entry->handle, ({about})->handle, VCS_NAME_MAX + 1);", *assign]
        text, args = f"cluster=%u %s {text}", ["__entry->cluster", "__entry->handle", *args]
    proto = f"TP_PROTO({', '.join(point['args'])})"
    names = f"TP_ARGS({', '.join(a.replace('*', ' ').split()[-1] for a in point['args'])})"
    out = [f"DECLARE_EVENT_CLASS(vcs_{point['class']},", f"\t{proto},", f"\t{names},", "\tTP_STRUCT__entry("]
    out += [f"\t\t{f}" for f in fields] + ["\t),", "\tTP_fast_assign("] + [f"\t\t{a}" for a in assign] + ["\t),"]
    out += [f'\tTP_printk("{text}",', *(f"\t\t  {a}," for a in args[:-1]), f"\t\t  {args[-1]})", ");", ""]
    for name, doc in point["events"].items():
        out += [*c_comment(doc), f"DEFINE_EVENT(vcs_{point['class']}, vcs_{name},", f"\t{proto},", f"\t{names}", ");", ""]
    return out


def trace_h(observe: Table) -> str:
    out = ["/* SPDX-License-Identifier: GPL-2.0 */", f"/* {NOTICE} */", "#undef TRACE_SYSTEM", "#define TRACE_SYSTEM vcs", ""]
    out += ["#if !defined(_VCS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)", "#define _VCS_TRACE_H", ""]
    out += ["#include <linux/tracepoint.h>", "", '#include "internal.h"', ""]
    for point in observe["tracepoints"]:
        out += point_c(point)
    out += ["#endif /* _VCS_TRACE_H */", "", "#undef TRACE_INCLUDE_PATH", "#define TRACE_INCLUDE_PATH ."]
    return "\n".join([*out, "#undef TRACE_INCLUDE_FILE", "#define TRACE_INCLUDE_FILE trace", "#include <trace/define_trace.h>", ""])


# --- the page ----------------------------------------------------------------------------------------------------------


def page(observe: Table) -> str:
    out = [f"<!-- {NOTICE} -->", "# What the switch shows", ""]
    out += ["Files below `/sys/kernel/vcs`, all read-only (changes go through netlink), and tracepoints of the system `vcs`.", ""]
    out += ["## Files", "", "| file | meaning |", "| --- | --- |"]
    for folder in observe["sysfs"]:
        for file in folder["files"]:
            path = "/".join(p for p in (folder["path"], file["name"]) if p)
            out.append(f"| `{path}` | {file['doc']} |")
    out += ["", "## Tracepoints", ""]
    out += ["Those about a cluster begin with `cluster` (its number on this kernel) and `handle`.", ""]
    out += ["| tracepoint | when | fields |", "| --- | --- | --- |"]
    for point in observe["tracepoints"]:
        names = [name for _, name, _ in point["fields"]]
        fields = ", ".join(["cluster", "handle", *names] if "about" in point else names)
        out += [f"| `vcs_{name}` | {doc} | {fields} |" for name, doc in point["events"].items()]
    return "\n".join([*out, ""])
