"""The recipes of CONTRIBUTING.md, executed as they stand there, in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from lbrcore import BranchClass
from tests.peers.peer_tools import need

ROOT = Path(__file__).resolve().parent.parent
RECIPES = {
    title: re.findall(r"^```(\w+)\n(.*?)^```$", text, re.S | re.M)
    for title, text in re.findall(r"^\*\*Add an? ([\w ]+)\.\*\*(.*?)(?=^\*\*Add|^## |\Z)",
                                  (ROOT / "CONTRIBUTING.md").read_text(), re.S | re.M)
}
SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup
import lbrcore
import pylbr
setup(name="patient", ext_modules=cythonize(
    [Extension("patient", ["patient.pyx"], include_dirs=[lbrcore.get_include()],
               extra_compile_args=["-O1", "-g0"])], language_level=3,
    include_path=[pylbr.__path__[0] + "/.."]))
"""
#: The inner loop, at 7, has four rounds in the only one of the outer; the last is not entered.
PROGRAM = "+++++[-[-]]" + "[+]"


def run(*words, cwd, path=()):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "COLUMNS": "100"}
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=env,
                          capture_output=True, text=True, timeout=500)


def checked(*words, cwd, path=()):
    result = run(*words, cwd=cwd, path=path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def follow(title, tree):
    """Write the files and make the changes of a recipe, then run its commands."""
    for language, block in RECIPES[title]:
        if language in ("python", "cython"):
            name, _, text = block.removeprefix("# ").partition("\n")
            (tree / name).write_text(text)
        elif language == "diff":
            name, *lines = block.removeprefix("+++ ").splitlines(keepends=True)
            change(tree / name.strip(), lines)
        elif language == "sh":
            for line in block.splitlines():
                assert line.startswith(".venv/bin/python "), line
                checked(*line.split()[1:], cwd=tree)


def change(path, lines):
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} has no longer exactly once:\n{old}"
    path.write_text(text.replace(old, new))


def install(title, name, folder):
    """The recipe's module as a package of its own: its file and its entry point."""
    (source,) = (block for kind, block in RECIPES[title] if kind in ("python", "cython"))
    (group, entry), = (re.search(r'entry-points\."(.*?)"\]\n(.*)', block).groups()
                       for kind, block in RECIPES[title] if kind == "toml")
    file, _, text = source.removeprefix("# ").partition("\n")
    (folder / Path(file).name).write_text(text)
    declare(folder, name, group, entry.replace('"', ""))


def declare(folder, name, group, entry):
    about = folder / f"{name}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The tree with what is built, in which the recipes are followed one after the other."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("lbrcore", "pylbr", "tests"):
        shutil.copytree(ROOT / name, tree / name,
                        ignore=shutil.ignore_patterns("__pycache__", "damaged", "*.c.dep"))
    (tree / "docs").mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "docs/registers.md"):
        shutil.copy2(ROOT / name, tree / name)
    return tree


def test_every_recipe_is_executed():
    assert set(RECIPES) == {"MSR", "branch class", "trace format", "arbitration policy", "engine",
                            "output format"}
    assert all(blocks for blocks in RECIPES.values())


def holds_everything(*path, cwd):
    """One table of states, and one of properties: the policy keeps what it claims."""
    result = run("-m", "pylbr", "verify", "patient", "--depth", 1, cwd=cwd, path=path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\| patient +\| 1 .*\| yes", result.stdout)
    assert result.stdout.count("| holds") == 13
    broken = run("-m", "pylbr", "verify", "unknown", cwd=cwd, path=path)
    assert broken.returncode and "patient" in broken.stderr, "it is listed"


@pytest.mark.slow
def test_one_file_in_the_tree_is_a_policy(tree):
    # The first of the recipes: later ones change headers, of which more is built.
    built = tree / "built"
    for name in ("lbrcore", "pylbr"):
        shutil.copytree(ROOT / name, built / name, ignore=shutil.ignore_patterns(
            "*.py", "*.p*", "*.c", "*.h"))  # what is built is not built again
    # Cython's own .pxd may have been installed after the build: make the C newer, the .so newest.
    for suffix in ("*.c", "*.so"):
        for file in tree.rglob(suffix):
            os.utime(file)
    before = {file: file.stat().st_mtime_ns for file in built.rglob("*.so")}
    follow("arbitration policy", tree)
    checked("setup.py", "-q", "build_ext", "--inplace", "--build-lib", "built", cwd=tree)
    new = {file.name.split(".")[0] for file in built.rglob("*.so")
           if before.get(file) != file.stat().st_mtime_ns}
    assert new == {"patient"}, "nothing else changes"
    holds_everything(cwd=tree)


@pytest.mark.slow
def test_one_row_is_a_register(tree):
    follow("MSR", tree)
    shown = run("-m", "pylbr", "msr", "MSR_PEBS_LD_LAT", "0x10020", cwd=tree)
    assert shown.returncode == 1 and "bits 0x10000: reserved bits must be 0" in shown.stdout
    assert "### MSR_PEBS_LD_LAT" in (tree / "docs/registers.md").read_text()
    saved = checked("-c", "from pylbr.cpu import Processor\n"
                    "one = Processor('sapphire-rapids')\none.wrmsr(0x3F6, 7)\n"
                    "print(Processor.from_state(one.state()).rdmsr(0x3F6))",
                    cwd=tree)
    assert saved.stdout == "7\n"
    checked("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/arch/test_bits.py",
            "tests/arch/test_reference.py", "tests/cpu/test_msrs.py", "tests/cpu/test_every_bit.py",
            "-k", "fresh or every_row or PEBS_LD_LAT or (expected and sapphire) or sapphire_rapids",
            cwd=tree)


@pytest.mark.slow
def test_both_decoders_learn_a_branch(tree):
    follow("branch class", tree)
    checked("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/x86/test_classify.py", "-k",
            "instructions or every_opcode", cwd=tree)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True], ids=["in the tree", "a package of its own"])
def test_one_module_is_a_trace_format(tree, tmp_path, apart):
    if apart:
        install("trace format", "pairs", tmp_path)
        tree = ROOT
    else:
        follow("trace format", tree)
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("401000 401020\n401028 401000\n")
    bad.write_text("401000 401020\n401028 40100\n401028 x\n")
    shown = checked("-m", "pylbr", "inspect", good, cwd=tree, path=[tmp_path])
    assert "pairs (text, FROM TO per line)" in shown.stdout
    read = ("-c", "import sys, pylbr.trace\nfor chunk in pylbr.trace.open(sys.argv[1]).chunks():"
            " print(*map(hex, [*chunk.column('from'), *chunk.column('to')]))")
    assert checked(*read, good, cwd=tree, path=[tmp_path]).stdout == (
        "0x401000 0x401028 0x401020 0x401000\n")
    refused = run(*read, bad, cwd=tree, path=[tmp_path])
    assert refused.returncode and "offset 0x1b: line 3 is not FROM TO" in refused.stderr


@pytest.mark.slow
def test_one_class_is_an_engine(tmp_path):
    install("engine", "brackets", tmp_path)
    program, trace = tmp_path / "program", tmp_path / "trace.parquet"
    program.write_text(PROGRAM)
    words = ("-m", "pylbr", "record", "--engine", "brackets")
    result = checked(*words, "--full", "-o", trace, program, cwd=ROOT, path=[tmp_path])
    table = pyarrow.parquet.read_table(trace).to_pydict()
    taken = [(start - 0x400000, to - 0x400000) for start, to, cls in
             zip(table["from"], table["to"], table["class"], strict=True)
             if cls == BranchClass.COND]
    assert taken == [*[(9, 8)] * 3, (11, 14)], result.stderr
    refused = run(*words, "-o", trace, program, cwd=ROOT, path=[tmp_path])
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    program.write_text("[[]")
    refused = run(*words, "--full", "-o", trace, program, cwd=ROOT, path=[tmp_path])
    assert "character 1 is never closed" in refused.stderr


@pytest.mark.slow
@pytest.mark.peer
def test_one_writer_is_an_output_format(tree, tmp_path):
    pytest.importorskip("unicorn")
    annotate = need("callgrind_annotate")
    follow("output format", tree)
    binary, data, out = (tmp_path / name for name in ("workload", "perf.data", "out.callgrind"))
    subprocess.run(["gcc", "-O1", "-static", "-nostdlib", "-ffreestanding", "-no-pie",
                    "-fno-stack-protector", "-fcf-protection=none", "-o", binary,
                    ROOT / "tests/peers/workload.c"], check=True)
    run("-m", "pylbr", "record", "--engine", "unicorn", "-c", "1009", "-o", data, binary, cwd=tree)
    checked("-m", "pylbr", "convert", data, "-o", out, "--binary", binary, cwd=tree)
    said = subprocess.run([annotate, out], capture_output=True, text=True, check=True).stdout
    total = sum(int(line.split()[1]) for line in out.read_text().splitlines()
                if line.startswith("0x"))
    assert total > 1000 and f"{total:,} " in re.search(r".*PROGRAM TOTALS", said)[0]


@pytest.mark.slow
def test_a_package_of_its_own_is_a_policy(tmp_path):
    install("arbitration policy", "patient", tmp_path)
    (tmp_path / "setup.py").write_text(SETUP)
    checked("setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path, path=[ROOT])
    holds_everything(tmp_path, cwd=ROOT)


def test_a_package_that_cannot_be_loaded_is_one_line(tmp_path):
    declare(tmp_path, "patient", "pylbr.policies", "patient = nowhere:Patient")
    result = run("-m", "pylbr", "verify", "patient", cwd=ROOT, path=[tmp_path])
    assert result.returncode and "Traceback" not in result.stderr
    assert "policy 'patient' (nowhere:Patient): No module named 'nowhere'" in result.stderr
    others = run("-m", "pylbr", "verify", "mediated", "--depth", 1, cwd=ROOT, path=[tmp_path])
    assert others.returncode == 0, others.stderr
