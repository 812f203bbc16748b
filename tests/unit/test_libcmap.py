# SPDX-License-Identifier: GPL-2.0-only
"""compat/libcmap: what mdadm asks corosync's library, answered from the DLM's own configuration."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CS_OK, CS_ERR_LIBRARY, CS_ERR_INVALID_PARAM, CS_ERR_NOT_EXIST = 1, 2, 7, 12


@pytest.fixture(scope="module")
def name_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configfs") / "cluster_name"


@pytest.fixture(scope="module")
def library(name_file: Path) -> ctypes.CDLL:
    """Built as it is shipped, but for where configfs is."""
    out = name_file.parent
    define = f'DEFINES=-DCLUSTER_NAME_FILE=\'"{name_file}"\''
    subprocess.run(["make", "-s", "-C", str(ROOT / "compat"), f"OUT={out}", define], check=True)
    found = ctypes.CDLL(str(out / "libcmap.so.4"))
    found.cmap_initialize.argtypes = [ctypes.POINTER(ctypes.c_uint64)]
    found.cmap_get_string.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p)]
    found.cmap_finalize.argtypes = [ctypes.c_uint64]
    return found


@pytest.mark.parametrize("content", ["alpha\n", "alpha"])
def test_the_name_is_the_dlms(library: ctypes.CDLL, name_file: Path, content: str) -> None:
    name_file.write_text(content)
    handle, value = ctypes.c_uint64(), ctypes.c_char_p()
    assert library.cmap_initialize(ctypes.byref(handle)) == CS_OK
    assert library.cmap_get_string(handle, b"totem.cluster_name", ctypes.byref(value)) == CS_OK
    assert value.value == b"alpha"
    assert library.cmap_finalize(handle) == CS_OK


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_without_a_name_it_fails_as_without_corosync(library: ctypes.CDLL, name_file: Path, content: str | None) -> None:
    name_file.unlink(missing_ok=True)
    if content is not None:
        name_file.write_text(content)
    handle = ctypes.c_uint64()
    assert library.cmap_initialize(ctypes.byref(handle)) == CS_ERR_LIBRARY


def test_after_a_failure_there_is_nothing_to_free(library: ctypes.CDLL, name_file: Path) -> None:
    """mdadm frees what it was given, also when the call failed."""
    name_file.write_text("alpha\n")
    handle, value = ctypes.c_uint64(), ctypes.c_char_p(b"not ours")
    assert library.cmap_initialize(ctypes.byref(handle)) == CS_OK
    assert library.cmap_get_string(handle, b"totem.token", ctypes.byref(value)) == CS_ERR_NOT_EXIST
    assert value.value is None
    assert library.cmap_get_string(handle, None, ctypes.byref(value)) == CS_ERR_INVALID_PARAM
    name_file.unlink()
    assert library.cmap_get_string(handle, b"totem.cluster_name", ctypes.byref(value)) == CS_ERR_LIBRARY


def test_ocfs2_tools_find_the_version_that_they_were_linked_against(library: ctypes.CDLL, name_file: Path) -> None:
    table = subprocess.run(["nm", "-D", "--with-symbol-versions", str(name_file.parent / "libcmap.so.4")],
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert "cmap_initialize@@COROSYNC_CMAP_1.0" in table
    assert library.cmap_finalize(ctypes.c_uint64(77)) == CS_ERR_INVALID_PARAM
