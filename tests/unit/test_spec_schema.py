# SPDX-License-Identifier: GPL-2.0-only
"""Our netlink spec is one by the kernel's own schema, so that the kernel's tools take it (tests/tools/test_ynl.py uses one)."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml
from harness import source

SPEC = Path(__file__).parents[2] / "kmod" / "spec" / "vcs.yaml"


def test_the_kernels_schema_takes_our_spec() -> None:
    schema = yaml.safe_load((source.get() / "Documentation/netlink/genetlink-legacy.yaml").read_text())
    spec = yaml.safe_load(SPEC.read_text())
    jsonschema.validate(spec, schema)
    spec["operations"]["list"][0]["colour"] = "red"
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        jsonschema.validate(spec, schema)
