"""Make liblbrcore's C of the C that Cython makes of the core: no Python, no second source.

    tools/amalgamate.py DIRECTORY      writes lbrcore.c and lbrcore_inline.h

Cython compiles a ``noexcept nogil`` function to C that names no Python object.  Starting from the
functions of the library's interface, this takes every function, type and constant that they use
out of ``lbrcore/*.c``, renames them as the sources do, and leaves the rest.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CORE = Path(__file__).resolve().parent.parent / "lbrcore"
MODULES = ("lbr", "control", "batch", "xsave", "capi")

#: Public name in lbrcore.h : name that Cython gives the function.
PUBLIC = {
    "lbr_create": "lbr.lbr_create",
    "lbr_destroy": "lbr.lbr_destroy",
    "lbr_copy": "lbr.lbr_copy",
    "lbr_reset": "lbr.lbr_reset",
    "lbr_config_valid": "lbr.lbr_config_valid",
    "lbr_strerror": "lbr.lbr_strerror",
    "lbr_record": "capi._record",
    "lbr_record_batch": "batch.lbr_record_batch",
    "lbr_write_ctl": "control.lbr_write_ctl",
    "lbr_write_depth": "control.lbr_write_depth",
    "lbr_set_enable": "control.lbr_set_enable",
    "lbr_set_frozen": "control.lbr_set_frozen",
    "lbr_set_event_mask": "control.lbr_set_event_mask",
    "lbr_write_tos": "control.lbr_write_tos",
    "lbr_read_entry": "lbr.lbr_read_entry",
    "lbr_write_entry": "lbr.lbr_write_entry",
    "lbr_read_records": "lbr.lbr_read_records",
    "lbr_read_ler": "lbr.lbr_read_ler",
    "lbr_write_ler": "lbr.lbr_write_ler",
    "lbr_pack": "xsave.lbr_pack",
    "lbr_unpack": "xsave.lbr_unpack",
    "lbr_xsaves": "xsave.lbr_xsaves",
    "lbr_xrstors": "xsave.lbr_xrstors",
    "lbr_record_rare": "lbr.lbr_record_rare",
}
#: The record path for a program that includes lbrcore_inline.h.
INLINE = {"lbr_record_inline": "lbr.lbr_record"}

NAME = re.compile(r"__pyx_[fte]_7lbrcore_\d+\w+")
MARK = re.compile(r"__pyx_([fte])_7lbrcore_\d+(" + "|".join([*MODULES, "choices"]) + r")_(\w+)")

PRELUDE = """\
/* Made by tools/amalgamate.py of the Cython sources of lbrcore: change those, not this.
 * SPDX-License-Identifier: Apache-2.0 */
"""
MACROS = """\
#if defined(__GNUC__)
#define LBR_LIKELY(x) __builtin_expect(!!(x), 1)
#define LBR_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define LBR_LIKELY(x) (x)
#define LBR_UNLIKELY(x) (x)
#endif
"""

TABLE = """
const lbrcore_api *lbr_api(void) {
  static const lbrcore_api api = {
      LBRCORE_ABI_VERSION, sizeof(lbrcore_api), sizeof(lbr_branch), sizeof(lbr_entry),
      sizeof(lbr_config), sizeof(lbr_state),
      """ + ",\n      ".join(f"lbr_{name}" for name in (
          "create", "destroy", "copy", "reset", "record", "record_batch", "write_ctl",
          "write_depth", "set_enable", "set_frozen", "set_event_mask", "write_tos", "read_entry",
          "write_entry", "read_records", "read_ler", "write_ler", "pack", "unpack", "xsaves",
          "xrstors")) + """};
  return &api;
}
"""


def compiled_name(name: str) -> str:
    module, function = name.split(".")
    return f"__pyx_f_7lbrcore_{len(module)}{module}_{function}"


def plain_name(name: str) -> str:
    """The name in the sources; a private one gets its module's name before it."""
    found = MARK.fullmatch(name)
    if not found:
        raise SystemExit(f"amalgamate: no rule for the name {name}")
    kind, module, rest = found.groups()
    if kind == "e":
        return f"LBR_{rest}" if not rest.startswith("LBR_") else rest
    return rest if rest.startswith("lbr_") else f"lbr_{module}_{rest.lstrip('_')}"


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def verbatim(module: str) -> dict[str, str]:
    """Macros of ``cdef extern from *`` blocks, by the name that they define."""
    found: dict[str, str] = {}
    for suffix in (".pxd", ".pyx"):
        path = (CORE / module).with_suffix(suffix)
        if not path.exists():
            continue
        for block in re.findall(r'cdef extern from \*:\n\s+"""\n(.*?)"""', path.read_text(), re.S):
            lines = [line.strip() for line in block.strip().splitlines()]
            text = "\n".join(lines)
            if text.startswith("#if"):
                names = re.findall(r"#define (\w+)", text)
                found.update(dict.fromkeys(names, text))
            else:
                found.update((re.match(r"#define (\w+)", line)[1], line) for line in lines)
    return found


class Definitions:
    """Functions, types, constants and macros of the generated modules, by Cython's name."""

    def __init__(self) -> None:
        self.functions: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.macros: dict[str, str] = {}
        for module in MODULES:
            self._read(without_comments((CORE / f"{module}.c").read_text()))
            self.macros |= verbatim(module)

    def _read(self, text: str) -> None:
        for enum in re.findall(r"^enum [^{;]*\{\n(.*?)^\};", text, re.S | re.M):
            for name, value in re.findall(r"(__pyx_e_\w+) = ([^,\n]+)", enum):
                self.constants[name] = value
        for name, body in re.findall(r"^struct (__pyx_t_7lbrcore_\w+) \{\n(.*?)^\};", text,
                                     re.S | re.M):
            self.types[name] = body
        strings = dict(re.findall(r'^static const char (__pyx_k_\w+)\[\] = (".*");', text, re.M))
        pattern = re.compile(
            r"^static (?:CYTHON_INLINE )?[^;{}\n]*?\b(__pyx_f_7lbrcore_\w+)\([^;{}]*\) \{\n"
            r".*?^\}\n", re.S | re.M)
        for found in pattern.finditer(text):
            self.functions[found[1]] = re.sub(
                r"__pyx_k_\w+", lambda m: strings.get(m[0], m[0]), found[0])

    def reachable(self, roots: list[str]) -> list[str]:
        """Names of all functions that `roots` call, callees first."""
        order: list[str] = []
        seen: set[str] = set()

        def visit(name: str) -> None:
            if name in seen:
                return
            seen.add(name)
            if name not in self.functions:
                raise SystemExit(f"amalgamate: {name} is not in the generated C")
            for other in NAME.findall(self.functions[name]):
                if other.startswith("__pyx_f_"):
                    visit(other)
            order.append(name)

        for root in roots:
            visit(root)
        return order


def tidy(body: str) -> str:
    """A function without what Cython leaves for Python, in readable names."""
    body = re.sub(r"^\s*\n", "", body, flags=re.M)
    body = body.replace("CYTHON_INLINE ", "inline ").replace("CYTHON_UNUSED ", "")
    body = re.sub(r"\blikely\(", "LBR_LIKELY(", body)
    body = re.sub(r"\bunlikely\(", "LBR_UNLIKELY(", body)
    body = re.sub(r"__pyx_v_([A-Za-z]\w*)", r"\1", body)
    body = re.sub(r"__pyx_t_(\d+)\b", r"t\1", body)
    body = re.sub(r"__pyx_L(\d+)(_\w+)?", lambda m: f"L{m[1]}{m[2] or ''}", body)
    return body.replace("__pyx_r", "result_")


def rename(text: str, names: dict[str, str]) -> str:
    text = NAME.sub(lambda m: names.get(m[0]) or plain_name(m[0]), text)
    left = re.search(r"\w*__?[Pp]yx\w*|\bP[Yy]\w+|\bCYTHON\w+", text)
    if left:
        raise SystemExit(f"amalgamate: {left[0]} is left in the C of the library")
    return text


def source(definitions: Definitions, order: list[str], names: dict[str, str],
           exported: set[str]) -> str:
    """Macros, constants, types and functions, as text."""
    bodies = [tidy(definitions.functions[name]) for name in order]
    text = "\n".join(bodies)
    used = set(NAME.findall(text))
    parts = [MACROS]
    parts += dict.fromkeys(
        macro for name, macro in definitions.macros.items() if re.search(rf"\b{name}\b", text))
    constants = [f"    {name} = {definitions.constants[name]}" for name in sorted(used)
                 if name.startswith("__pyx_e_")]
    if constants:
        parts.append("enum {\n" + ",\n".join(constants) + "\n};")
    for name in sorted(n for n in used if n in definitions.types):
        parts.append(f"typedef struct {name} {{\n{definitions.types[name]}}} {name};")
    for name, body in zip(order, bodies, strict=True):
        if name in exported:
            body = body.replace("static ", "LBRCORE_PUBLIC ", 1)
        parts.append(body)
    return rename("\n".join(parts), names)


def main(directory: str) -> None:
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    definitions = Definitions()
    public = {compiled_name(name): public for public, name in PUBLIC.items()}
    inline = {compiled_name(name): given for given, name in INLINE.items()}
    order = definitions.reachable(list(public))
    (target / "lbrcore.c").write_text(
        PRELUDE + "#define LBR_BUILDING 1\n#include \"lbrcore.h\"\n#include <stdlib.h>\n"
        "#include <string.h>\n\n" + source(definitions, order, public, set(public)) + TABLE)
    near = directly(definitions, list(inline), set(public)) | set(inline)
    part = [name for name in definitions.reachable(list(inline)) if name in near]
    (target / "lbrcore_inline.h").write_text(
        PRELUDE + "#ifndef LBRCORE_INLINE_H\n#define LBRCORE_INLINE_H\n\n#include \"lbrcore.h\"\n\n"
        + source(definitions, part, public | inline, set()) + "\n#endif\n")


def directly(definitions: Definitions, roots: list[str], stop: set[str]) -> set[str]:
    """Functions that `roots` reach without going through one of `stop`."""
    found: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        for other in NAME.findall(definitions.functions[name]):
            if other.startswith("__pyx_f_") and other not in stop and other not in found:
                found.add(other)
                todo.append(other)
    return found


if __name__ == "__main__":
    main(sys.argv[1])
