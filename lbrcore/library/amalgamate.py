"""Make liblbrcore's C of the C that Cython makes of the core: no Python, no second source.

    lbrcore/library/amalgamate.py DIRECTORY      writes lbrcore.c and lbrcore_inline.h

Cython compiles a ``noexcept nogil`` function to C that names no Python object.  Starting from the
functions of the library's interface, this takes every function, type and constant that they use
out of ``lbrcore/*.c``, renames them as the sources do, and leaves the rest.  What the header
declares gets a function of that name that looks for NULL and calls the one of the sources.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
X86 = ROOT / "pylbr" / "x86"
CORE = ("lbr", "control", "batch", "kind", "xsave", "capi")
CPU = ("lookup", "values", "msr", "retire", "events", "state", "blocks")
#: Modules whose C is taken, and those that have declarations alone.
MODULES = (*(f"lbrcore.{name}" for name in CORE), *(f"pylbr.cpu.compiled.{name}" for name in CPU),
           "pylbr.x86.describe")
DECLARED = ("lbrcore.choices", "pylbr.x86.block_flags", "pylbr.x86.condition", "pylbr.arch.bits",
            "pylbr.cpu.debugctl", "pylbr.cpu.compiled.tables")

#: Public name in the headers : the module of lbrcore, and the name that Cython gives the function.
PUBLIC = {
    "lbr_create": "lbr.lbr_create",
    "lbr_open": "lbr.lbr_open",
    "lbr_destroy": "lbr.lbr_destroy",
    "lbr_copy": "lbr.lbr_copy",
    "lbr_reset": "lbr.lbr_reset",
    "lbr_config_valid": "lbr.lbr_config_valid",
    "lbr_strerror": "lbr.lbr_strerror",
    "lbr_record": "capi._record",
    "lbr_kind": "kind._kind",
    "lbr_record_kind": "kind._record_kind",
    "lbr_record_kinds": "kind._record_kinds",
    "lbr_hold": "kind._hold",
    "lbr_record_held": "kind._record_held",
    "lbr_release": "kind._release",
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
    "lbr_record_kind_rare": "kind.lbr_record_kind_rare",
    "lbr_record_held_rare": "kind.lbr_record_held_rare",
}
#: Public functions of lbrcore_cpu.h : the module that defines them, under the same name.
PUBLIC_CPU = {
    name: module
    for module, names in {
        "cpu.compiled.lookup": "lbr_model_find lbr_model_at lbr_msr_name lbr_cpuid",
        "cpu.compiled.msr": "lbr_rdmsr lbr_wrmsr lbr_host_rdmsr lbr_host_wrmsr lbr_xsetbv",
        "cpu.compiled.retire": """lbr_cpu_branch lbr_cpu_record lbr_cpu_retire lbr_cpu_records
            lbr_cpu_raise_pmi""",
        "cpu.compiled.events": """lbr_cpu_open lbr_cpu_destroy lbr_cpu_copy lbr_cpu_on_pmi
            lbr_cpu_set_mode lbr_cpu_set_tsx lbr_cpu_debug_exception lbr_cpu_smi lbr_cpu_rsm
            lbr_cpu_init lbr_cpu_reset lbr_cpu_mwait lbr_cpu_enclave_enter lbr_cpu_enclave_leave
            lbr_cpu_xsaves lbr_cpu_xrstors""",
        "cpu.compiled.state": "lbr_cpu_save lbr_cpu_load",
        "cpu.compiled.blocks": "lbr_cpu_enter lbr_cpu_interrupt lbr_cpu_settle",
        "x86.describe": "lbr_block_describe lbr_block_ends lbr_cpu_flags",
    }.items() for name in names.split()}
#: Exported as they are: NULL means something, or the inline part has looked.
UNCHECKED = {"lbr_destroy", "lbr_record_rare", "lbr_record_kind_rare",
             "lbr_record_held_rare", "lbr_model_at", "lbr_cpu_destroy"}
#: Return a number, 0 for NULL; and return nothing in the sources.
ZERO = {"lbr_config_valid", "lbr_read_records", "lbr_cpu_records", "lbr_hold", "lbr_record_held"}
ALWAYS = {"lbr_copy", "lbr_reset", "lbr_set_enable", "lbr_set_frozen", "lbr_set_event_mask",
          "lbr_read_ler", "lbr_write_ler", "lbr_cpu_copy", "lbr_cpu_on_pmi", "lbr_cpu_set_mode"}
#: The record path for a program that includes lbrcore_inline.h.
INLINE = {"lbr_record_inline": "lbr.lbr_record", "lbr_kind_inline": "kind.lbr_kind",
          "lbr_hold_inline": "kind.lbr_hold", "lbr_release_inline": "kind.lbr_release",
          "lbr_record_held_inline": "kind.lbr_record_held",
          "lbr_record_kind_inline": "kind.lbr_record_kind"}

NAME = re.compile(r"__pyx_[fte]_(?:7lbrcore|5pylbr)_\d+\w+")

PRELUDE = """\
/* Made by lbrcore/library/amalgamate.py of the Cython sources of lbrcore: change those, not this.
 * SPDX-License-Identifier: Apache-2.0 */
"""
#: A caller has just stored FROM and TO one by one; one load of both would wait for them.
SCALAR = """\
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-slp-vectorize")
#endif
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

def unchecked(name: str) -> str:
    """The function that an exported one calls."""
    return name if name in UNCHECKED else f"{name}_unchecked"


TABLE = """
const lbrcore_api *lbr_api(void) {
  static const lbrcore_api api = {
      LBRCORE_ABI_VERSION, sizeof(lbrcore_api), sizeof(lbr_branch), sizeof(lbr_entry),
      sizeof(lbr_config), sizeof(lbr_state),
      """ + ",\n      ".join(unchecked(f"lbr_{name}") for name in (
          "create", "destroy", "copy", "reset", "record", "record_batch", "write_ctl",
          "write_depth", "set_enable", "set_frozen", "set_event_mask", "write_tos", "read_entry",
          "write_entry", "read_records", "read_ler", "write_ler", "pack", "unpack", "xsaves",
          "xrstors")) + """};
  return &api;
}
"""


def compiled_name(name: str) -> str:
    *modules, function = name.split(".")
    return f"__pyx_f_{''.join(f'{len(part)}{part}_' for part in modules)}{function}"


def plain_name(name: str) -> str:
    """The name in the sources; a private one gets its module's name before it."""
    kind, rest = name.removeprefix("__pyx_").split("_", 1)
    module = []
    while found := re.match(r"(\d+)(\w+)", rest):
        length = int(found[1])
        module.append(found[2][:length])
        rest = found[2][length + 1:]
    if ".".join(module) not in (*MODULES, *DECLARED):
        raise SystemExit(f"amalgamate: {name} is of none of the modules: {'.'.join(module)}")
    if kind == "e":
        if module == ["pylbr", "arch", "bits"]:
            return f"PYLBR_{rest}"  # as its macros are called
        if module[0] == "pylbr":
            return f"LBR_{module[-1]}_{rest}".upper()
        return f"LBR_{rest}" if not rest.startswith("LBR_") else rest
    return rest if rest.startswith("lbr_") else f"lbr_{module[-1]}_{rest.lstrip('_')}"


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def verbatim(module: str) -> dict[str, str]:
    """Macros of ``cdef extern from *`` blocks, by the name that they define."""
    found: dict[str, str] = {}
    for suffix in (".pxd", ".pyx"):
        path = ROOT.joinpath(*module.split(".")).with_suffix(suffix)
        if not path.exists():
            continue
        for block in re.findall(r'cdef extern from \*:\n\s+"""\n(.*?)"""', path.read_text(), re.S):
            lines = [line.strip() for line in block.strip().splitlines()]
            text = "\n".join(lines)
            if not text.startswith("#"):
                continue
            if text.startswith("#if"):
                names = re.findall(r"#define (\w+)", text)
                found.update(dict.fromkeys(names, text))
            else:
                found.update((line.removeprefix("#define ").split()[0], line) for line in lines)
    return found


class Definitions:
    """Functions, types, constants and macros of the generated modules, by Cython's name."""

    def __init__(self) -> None:
        self.functions: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.macros: dict[str, str] = {}
        for module in MODULES:
            path = ROOT.joinpath(*module.split(".")).with_suffix(".c")
            self._read(without_comments(path.read_text()))
        for module in MODULES + DECLARED:
            self.macros |= verbatim(module)

    def _read(self, text: str) -> None:
        for enum in re.findall(r"^enum [^{;]*\{\n(.*?)^\};", text, re.S | re.M):
            for name, value in re.findall(r"(__pyx_e_\w+) = ([^,\n]+)", enum):
                self.constants[name] = value
        for name, body in re.findall(
                r"^struct (__pyx_t_(?:7lbrcore|5pylbr)_\w+) \{\n(.*?)^\};", text, re.S | re.M):
            self.types[name] = body
        strings = dict(re.findall(r'^static const char (__pyx_k_\w+)\[\] = (".*");', text, re.M))
        pattern = re.compile(
            r"^static (?:CYTHON_INLINE )?[^;{}\n]*?\b(__pyx_f_(?:7lbrcore|5pylbr)_\w+)\([^;{}]*\) "
            r"\{\n.*?^\}\n", re.S | re.M)
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
    left = re.search(r"\w*__?[Pp]yx\w*|\b(?!PYLBR)P[Yy]\w+|\bCYTHON\w+", text)
    if left:
        raise SystemExit(f"amalgamate: {left[0]} is left in the C of the library")
    return text


DECLARATION = re.compile(r"^LBRCORE_PUBLIC ([^;(]*?)(\w+)\(([^;]*)\);", re.M)


def checks(header: str) -> str:
    """The exported functions: a look for NULL, then the function of the sources."""
    parts = []
    for result, name, arguments in DECLARATION.findall(header):
        if name not in PUBLIC | PUBLIC_CPU or name in UNCHECKED:
            continue
        arguments = " ".join(arguments.split())
        given = [re.findall(r"\w+", one)[-1] for one in arguments.split(",")]
        pointers = [word for word, one in zip(given, arguments.split(","), strict=True)
                    if "*" in one and "LBR_OPTIONAL" not in one]
        call = f"{unchecked(name)}({', '.join(given)})"
        refused = "0" if name in ZERO else "NULL" if "*" in result else "LBR_ENULL"
        lines = [f"{result}{name}({arguments}) {{"]
        if pointers:
            lines.append(f"  if (LBR_UNLIKELY({' || '.join(f'!{word}' for word in pointers)})) "
                         f"return {refused};")
        lines += [f"  {call};", "  return LBR_OK;"] if name in ALWAYS else [f"  return {call};"]
        parts.append("\n".join([*lines, "}"]))
    return "\n".join(parts) + "\n"


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


def given(path: Path) -> str:
    """A C file without its includes of others."""
    return re.sub(r'^#include "\w+\.h"\n', "", path.read_text(), flags=re.M)


def write(path: Path, text: str) -> None:
    """Leave an equal file alone, for the Makefile."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main(directory: str) -> None:
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    definitions = Definitions()
    public = {compiled_name(f"lbrcore.{name}"): public for public, name in PUBLIC.items()}
    public |= {compiled_name(f"pylbr.{module}.{name}"): name
               for name, module in PUBLIC_CPU.items()}
    inline = {compiled_name(f"lbrcore.{name}"): given for given, name in INLINE.items()}
    inner = inline | {name: unchecked(given) for name, given in public.items()}
    exported = {name for name, given in public.items() if given in UNCHECKED}
    order = definitions.reachable(list(public))
    headers = "".join((HERE.parent / "include" / name).read_text()
                      for name in ("lbrcore.h", "lbrcore_cpu.h"))
    write(target / "lbrcore.c",
          PRELUDE + SCALAR + "#define LBR_BUILDING 1\n"
          "#include \"lbrcore.h\"\n#include \"lbrcore_cpu.h\"\n"
          "#include \"lbrcore_perfdata.h\"\n"
          "#include <stdlib.h>\n#include <string.h>\n\n" + given(HERE / "models.c")
          + "".join(given(X86 / f"{name}.h") for name in ("opcodes", "insn", "describe", "decode"))
          + source(definitions, order, inner, exported) + checks(headers) + TABLE
          + given(HERE / "perfdata.c"))
    near = directly(definitions, list(inline), set(public)) | set(inline)
    part = [name for name in definitions.reachable(list(inline)) if name in near]
    write(
        target / "lbrcore_inline.h",
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
