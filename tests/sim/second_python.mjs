// SPDX-License-Identifier: GPL-2.0-only
// CPython compiled to WebAssembly, with the sources mounted: node second_python.mjs PYODIDE SOURCES CODE prints what CODE evaluates to.
import { pathToFileURL } from "node:url";

const [home, sources, code] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${home}/pyodide.mjs`).href);
const python = await loadPyodide({ indexURL: home, env: { PYTHONHASHSEED: "7" } });
python.FS.mkdirTree("/src");
python.FS.mount(python.FS.filesystems.NODEFS, { root: sources }, "/src");
python.runPython('import sys; sys.path.insert(0, "/src"); sys.dont_write_bytecode = True');
process.stdout.write(`${python.runPython(code)}\n`);
