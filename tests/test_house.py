"""The house rules that a machine can hold."""

import ast
import importlib
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

from pylbr.arch import bits

ROOT = Path(__file__).resolve().parent.parent

#: What every package may import.
COMMON = {"errors", "extras", "printable", "tables", "worker"}


def tracked(*patterns):
    out = subprocess.run(["git", "-C", str(ROOT), "ls-files", *patterns], check=True,
                         capture_output=True, text=True).stdout
    return [ROOT / name for name in out.split("\n") if name and (ROOT / name).exists()]


def package_of(path):
    parts = path.relative_to(ROOT).parts
    if parts[0] == "lbrcore":
        return "lbrcore"
    return parts[1].removesuffix(".py") if len(parts) == 2 else parts[1]


def test_every_module_can_be_imported():
    """Also those that a command imports only when it needs them."""
    for path in tracked("lbrcore/*.py", "pylbr/*.py", "pylbr/**/*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            importlib.import_module(".".join(parts).removesuffix(".__init__"))


def test_every_pyx_has_its_stub():
    assert not [str(p) for p in tracked("lbrcore/*.pyx", "pylbr/**/*.pyx")
                if not p.with_suffix(".pyi").exists()]


def test_the_recipes_name_what_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:lbrcore|pylbr|tests|docs|bench)/[\w./]*)`", text))
    assert len(named) > 8
    assert not [name for name in named if not (ROOT / name).exists()]


# Circles, twins, facts

SOURCES = [path for path in tracked("lbrcore/*.p*", "pylbr/*.p*")
           if path.suffix in (".py", ".pyx", ".pxd")]


def statements(path):
    """(module, names, cimported) of every import in a file, type checkers' included."""
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from ((alias.name, [], False) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert not node.level, f"{path}: relative import"
                yield node.module, [alias.name for alias in node.names], False
        return
    pattern = r"^[ \t]*from\s+([\w.]+)\s+(c?import)\s+(\([^)]*\)|[^\n]*)"
    for module, word, names in re.findall(pattern, text, re.M):
        yield module, re.findall(r"(\w+)(?:\s+as\s+\w+)?", names), word == "cimport"
    for word, module in re.findall(r"^[ \t]*(c?import)\s+([\w.]+)", text, re.M):
        yield module, [], word == "cimport"


def file_of(module, cimported):
    """The tracked file that an import of `module` reads; None for what is not ours."""
    place = ROOT.joinpath(*module.split("."))
    for suffix in (".pxd",) if cimported else (".py", ".pyx"):
        for path in (place.with_suffix(suffix), place / f"__init__{suffix}"):
            if path in KNOWN:
                return path
    return None


KNOWN = set(SOURCES)


def imports_of_packages():
    """Package -> packages of ours that its files import."""
    found = {}
    for path in SOURCES:
        here = found.setdefault(package_of(path), set())
        for module, names, _ in statements(path):
            parts = module.split(".")
            if parts[0] == "lbrcore":
                here.add("lbrcore")
            elif parts[0] == "pylbr":
                here |= {parts[1]} if len(parts) > 1 else set(names)
    return {package: used - {package} for package, used in found.items()}


def test_the_architecture_page_shows_the_imports_and_no_others():
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = {package: set(re.findall(r"`(\w+)`", used))
             for package, used in re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+|nothing) \|$",
                                             page, re.M)}
    real = imports_of_packages()
    del real["__main__"], real["__init__"]
    assert all(real.pop(package) <= COMMON for package in COMMON)
    assert table == {package: used - COMMON for package, used in real.items()}
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", page, re.M))
    assert drawn == {(used, package) for package in table for used in table[package]
                     if not any(used in reached(other, table) for other in table[package])}


def reached(package, table):
    """All that a package imports, directly or through others."""
    return table[package].union(*(reached(used, table) for used in table[package]))


def test_nothing_uses_the_command_line():
    users = {package for package, used in imports_of_packages().items() if "cli" in used}
    assert users == {"__main__"}


def files_imported(path):
    """Files of ours that a file imports; a .pyx has its own .pxd, too."""
    found = {path.with_suffix(".pxd")} & KNOWN if path.suffix == ".pyx" else set()
    for module, names, cimported in statements(path):
        if module.split(".")[0] not in ("pylbr", "lbrcore"):
            continue
        of_names = {file_of(f"{module}.{name}", cimported) for name in names}
        found |= of_names if None not in of_names and names else of_names | {
            file_of(module, cimported)}
    return found - {None, path}


def circles(edges):
    """Sets of files that reach one another (Tarjan)."""
    order, low, stack, found = {}, {}, [], []

    def visit(one):
        order[one] = low[one] = len(order)
        stack.append(one)
        for other in edges[one]:
            if other not in order:
                visit(other)
            if other in stack:
                low[one] = min(low[one], low[other])
        if low[one] == order[one]:
            at = stack.index(one)
            if len(stack) - at > 1:
                found.append(sorted(str(path.relative_to(ROOT)) for path in stack[at:]))
            del stack[at:]

    for one in edges:
        if one not in order:
            visit(one)
    return found


def test_no_circle_of_files():
    edges = {path: files_imported(path) for path in SOURCES}
    parts, values = ROOT / "pylbr/cpu/parts.py", ROOT / "pylbr/cpu/msr/values.py"
    assert values in edges[parts], "imports are read"
    assert ROOT / "pylbr/arch/bits.pxd" in edges[ROOT / "pylbr/cpu/hardware.pxd"]
    assert not circles(edges)
    assert circles({**edges, values: edges[values] | {parts}}), "a circle would be found"


def test_no_production_code_imports_a_twin():
    wrong = [f"{path.relative_to(ROOT)} imports {module}" for path in SOURCES
             if "reference" not in path.stem
             for module, names, _ in statements(path)
             if module.startswith(("pylbr.", "lbrcore"))
             and (re.search(r"(^|[._])reference(_|$)", module)
                  or any(file_of(f"{module}.{name}", False) and "reference" in name
                         for name in names))]
    assert not wrong


#: Where a register's number, a field's mask or a unit may be spelt: rows and what is generated
#: from them; the core's header, and what of it numpy and Python name; the twins.
OWNERS = ("pylbr/arch/rows_", "pylbr/arch/features.py", "pylbr/arch/bits.", "pylbr/arch/vmx.py",
          "lbrcore/include/lbrcore.h", "lbrcore/dtypes.py", "lbrcore/config.py",
          "lbrcore/events.py", "lbrcore/reference", "lbrcore/predictor_reference.py")
#: perf's own numbers of the same names (perf_event.h).
OTHERS = {"pylbr/perf/abi.py"}
NAMES = "|".join([
    "LBREN", "LBR_FRZ", "CTR_FRZ", r"FREEZE_LBRS\w*", r"FREEZE_PERFMON\w*", "MISPRED",
    "CYC_CNT_VALID", r"DEBUGCTL_\w+", r"EVTSEL_\w+", r"SELECT_CPL\w*", r"UNIT_\w+", r"WEIGHT_\w+",
    "BRANCHES", "INSTRUCTIONS", "CYCLES",
    *(name for name in vars(bits) if name.isupper() and "_" in name)])
NUMBER = r"(?:0x[0-9A-Fa-f]+|\d+(?: *<< *\d+)?)"
#: MSR numbers that stand for nothing else.
MSRS = r"0x(14C[EF]|1D[9DE]|1C[89]|38[DEF]|39[12]|3F[12]|4C1|DA0|C001030[01]|C000010[EF])\b"


def code(path):
    """A file's text without comments and strings."""
    text = path.read_text()
    text = re.sub(r'"""(?:.|\n)*?"""|"[^"\n]*"|\'[^\'\n]*\'', '""', text)
    return re.sub(r"#(?!define).*", "", text)


def own_copies(text):
    """Numbers that some code gives to names that the rows define, and numbers of MSRs."""
    given = re.findall(rf"([A-Za-z_]\w*(?:, *[A-Za-z_]\w*)*) *= *{NUMBER}\b", text)
    names = [name for names in given for name in re.split(", *", names)]
    defined = rf"_?(?:INFO_|CTL_|STATUS_|IA32_)?(?:{NAMES})"
    return [name for name in names if re.fullmatch(defined, name)] + re.findall(MSRS, text, re.I)


def test_facts_are_spelt_once():
    assert own_copies("    MISPRED = 4") and own_copies("_LBR_FRZ = 1 << 58")
    assert own_copies("cpu.wrmsr(0x1D9, 0)") and own_copies("_INFO_MISPRED = 1 << 63")
    assert own_copies("A, _LBREN = 0x6, 1") and not own_copies("few_branches = 4")
    wrong = {}
    for path in SOURCES + tracked("pylbr/**/*.h", "lbrcore/**/*.h"):
        name = str(path.relative_to(ROOT))
        if not name.startswith(OWNERS) and name not in OTHERS:
            found = own_copies(code(path))
            if found:
                wrong[name] = found
    assert not wrong


def test_tests_take_numbers_of_the_manual_from_one_file():
    wrong = {str(path.relative_to(ROOT)): found
             for path in tracked("tests/*.py", "bench/*.py")
             if path.name not in ("manual.py", "test_house.py")
             and (found := own_copies(code(path)))}
    assert not wrong


def test_one_module_reads_elf_files():
    users = {str(path.relative_to(ROOT)) for path in SOURCES
             for module, _, _ in statements(path) if module.split(".")[0] == "elftools"}
    assert users == {"pylbr/files/elf.py"}


def test_the_english_of_code_and_pages():
    """No pronouns of persons for code, no metaphors, and words that the field uses."""
    words = (r"\b(nobody|somebody|anybody|whoever|anew|likewise|comes? to grief|(?:is|are) told of|"
             r"goes on|strangers?)\b")
    texts = tracked("*.md", "*.py", "*.pyx", "*.pxd", "*.c", "*.h", "*.S", "*.rs", "*.go", "*.cpp")
    wrong = {str(path.relative_to(ROOT)): found for path in texts
             if path != Path(__file__) and (found := re.findall(words, path.read_text(), re.I))}
    assert len(texts) > 500 and not wrong


def test_code_reports_and_contains():
    """It does not say, tell or know."""
    wrong = {str(path.relative_to(ROOT)): found for path in SOURCES + tracked("pylbr/**/*.[ch]")
             if (found := re.findall(r"\b(?:says|tells|knows)\b", path.read_text()))}
    assert len(SOURCES) > 300 and not wrong


def defines(path, name):
    """Whether a file defines a function, a class or a method (``Class.method``)."""
    owner, _, function = name.rpartition(".")
    text = path.read_text()
    if path.suffix in (".c", ".h"):
        return re.search(rf"^[\w ]+[ *]{function}\([^;{{]*\)[^;{{]* ?{{", text, re.M)
    if owner:
        found = re.search(rf"^(cdef )?class {owner}\b.*?(?=^\S|\Z)", text, re.M | re.S)
        text = found[0] if found else ""
    return re.search(rf"^ *(def|class|c?p?def [^=\n]*?)\s*\b{function}\b *[(:]", text, re.M)


def test_the_walks_name_what_exists():
    text = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`((?:lbrcore|pylbr)/[\w./]+):([\w.]+)`", text)
    assert len(named) > 40
    missing = [f"{name}:{function}" for name, function in named
               if not (ROOT / name).exists() or not defines(ROOT / name, function)]
    assert not missing


def test_a_name_of_a_dtype_or_parser_means_one_thing():
    """Layouts, and functions that read words of perf, are defined once under their name."""
    places: dict[str, list[str]] = {}
    for path in tracked("lbrcore/*.py", "pylbr/*.py"):
        for name in re.findall(r"^(\w+_DTYPE)\b[^=\n]*= |^def (parse_(?:filter|event|record))\(",
                               path.read_text(), re.M):
            places.setdefault("".join(name), []).append(str(path.relative_to(ROOT)))
    assert "BRANCH_ENTRY_DTYPE" in places and "parse_filter" in places
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/index.md").read_text()
    words = {word for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.S)
             for word in block.splitlines() if word and word[0] != ":" and "/" not in word}
    pages = {path.stem for path in tracked("docs/*.md", "docs/*.ipynb")} - {"index"}
    assert len(pages) > 25
    assert not [page for page in pages if not any(fnmatch(page, word) for word in words)]
    assert not [word for word in words if not any(fnmatch(page, word) for page in pages)]


def test_a_file_is_one_concept():
    """Some 500 lines and no more, tables that are generated left out."""
    texts = {path: path.read_text() for path in SOURCES + tracked(
        "pylbr/**/*.[chS]", "lbrcore/**/*.[ch]", "tests/*.py", "tests/**/*.h", "bench/*.py")}
    long = {str(path.relative_to(ROOT)): count for path, text in texts.items()
            if (count := text.count("\n")) > 560
            and not re.search("Generated|Printed by", text[:300])}
    assert len(texts) > 500 and not long
