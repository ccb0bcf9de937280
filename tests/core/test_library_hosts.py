"""Programs that have liblbrcore and no Python: a minimal root, Rust, other processors."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.core.library import ROOT, generate, install, prefix
from tests.once import needs

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "examples"


def run(*command, **environment):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=300, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------- a root without Python

def closure(*packages):
    """Installed Debian packages with all that they depend on."""
    text = run("dpkg-query", "-W", "-f", "${Package}\t${Depends}, ${Pre-Depends}\n")
    depends = dict(line.split("\t") for line in text.splitlines())
    found, todo = set(), list(packages)
    while todo:
        name = todo.pop()
        if name in found or name not in depends:
            continue
        found.add(name)
        for alternatives in depends[name].split(","):
            todo += [word.split("(")[0].split(":")[0].strip()
                     for word in alternatives.split("|")]
    return found


def copied(packages, root):
    """The files of packages, as they are on this machine."""
    listed = run("dpkg", "-L", *sorted(packages)).splitlines()
    unused = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bug|gcc|gdb)/|/lto")
    for name in filter(lambda name: name.startswith("/") and not unused.search(name), listed):
        real, target = Path(os.path.realpath(name)), root / name.lstrip("/")
        if not real.is_file():
            continue
        # Directories such as /lib may be links to those below /usr.
        target = root / os.path.realpath(os.path.dirname(name)).lstrip("/") / target.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(real, target)
    for name in ("bin", "lib", "lib64", "sbin"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("tmp", "dev"):
        (root / name).mkdir(exist_ok=True)
    (root / "dev/null").touch()


def inside(root, script):
    """The output of a shell script that sees nothing but `root`."""
    command = [shutil.which("chroot"), str(root), "/bin/sh", "-ec", script]
    if os.getuid():
        command = [shutil.which("unshare"), "--map-root-user", *command]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
                          timeout=300, cwd="/")
    if done.returncode and os.getuid() and "unshare" in done.stderr and (
            os.environ.get("CI") != "true"):
        pytest.skip("needs root or user namespaces")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_machine_without_python_records_branches(tmp_path):
    """gcc, libc and pkg-config; the library built there from its one C file."""
    needs("dpkg", "gcc", "pkg-config", "make", "chroot")
    packages = closure("gcc", "libc6-dev", "pkgconf", "pkg-config", "dash", "make", "coreutils",
                       "sed")
    root = tmp_path / "root"
    copied(packages, root)
    source = root / "lbrcore"
    shutil.copytree(ROOT / "lbrcore/include", source / "include")
    shutil.copytree(ROOT / "lbrcore/library", source / "library",
                    ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    generate(source / "build")
    shutil.copy(EXAMPLES / "c/emulator.c", root)
    shutil.copy(EXAMPLES / "c/processor.c", root)
    names = [str(path.relative_to(root)) for path in root.rglob("*")]
    assert not [name for name in names if "python" in name.lower()]
    assert "lbrcore/build/lbrcore.c" in names
    out = inside(root, """
        make -s -C /lbrcore/library SOURCE=/lbrcore/build CC=gcc PREFIX=/usr install
        gcc -O2 emulator.c -o emulator $(pkg-config --cflags --libs lbrcore)
        gcc -O2 processor.c -o processor $(pkg-config --cflags --libs lbrcore)
        ./emulator && ./processor""")
    assert out.startswith("fib(10) = 55\n 0 0x401038 -> 0x401008 type 5")
    assert "IA32_LBR_0_FROM_IP" in out and "#GP: reserved bits must be 0" in out


# ---------------------------------------------------------------- Rust

def test_the_crates(tmp_path):
    """`cargo test` of both, with the toolchain of Debian 12 and no registry."""
    needs("cargo")
    crates = tmp_path / "rust"
    shutil.copytree(EXAMPLES / "rust", crates, ignore=shutil.ignore_patterns("target"))
    library = tmp_path / "lib"
    library.mkdir()
    shutil.copy(prefix() / "lib/liblbrcore.a", library)
    cargo = "/usr/bin/cargo" if os.path.exists("/usr/bin/cargo") else shutil.which("cargo")
    done = subprocess.run(
        [cargo, "test", "--offline"], cwd=crates, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PATH": f"/usr/bin:{os.environ['PATH']}", "RUSTFLAGS": "-D warnings",
             "LBRCORE_LIB_DIR": str(library), "CARGO_HOME": str(tmp_path / "cargo")})
    assert done.returncode == 0, done.stdout + done.stderr
    passed = [int(n) for n in re.findall(r"test result: ok. (\d+) passed", done.stdout)]
    assert sum(passed) == 8


# ---------------------------------------------------------------- other processors, checkers

def test_aarch64_gives_the_same_records(tmp_path):
    needs("aarch64-linux-gnu-gcc", "qemu-aarch64")
    build = generate(tmp_path / "build")
    usr = install(build, tmp_path / "usr", CC="aarch64-linux-gnu-gcc", CFLAGS="-O2 -Werror",
                  AR="aarch64-linux-gnu-ar")
    for name in ("emulator", "processor"):
        outputs = []
        for compiler, library, runner in (("aarch64-linux-gnu-gcc", usr, ["qemu-aarch64"]),
                                          ("gcc", prefix(), [])):
            program = tmp_path / f"{name}-{len(runner)}"
            run(compiler, "-O2", "-static", EXAMPLES / f"c/{name}.c", f"-I{library}/include",
                library / "lib/liblbrcore.a", "-o", program)
            outputs.append(run(*runner, program))
        assert outputs[0] == outputs[1] and len(outputs[0]) > 500


@pytest.mark.parametrize("checker", ["sanitizers", "valgrind"])
def test_the_processor_is_clean_under(checker, tmp_path):
    """The example, which goes through models, registers, events and saved state."""
    flags = ["-O1", "-g"]
    if checker == "sanitizers":
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    else:
        needs("valgrind")
    usr = install(generate(tmp_path / "build"), tmp_path / "usr", CFLAGS=" ".join(flags),
                  LDFLAGS=" ".join(flags))
    program = tmp_path / "processor"
    run("gcc", *flags, EXAMPLES / "c/processor.c", f"-I{usr}/include",
        usr / "lib/liblbrcore.a", "-o", program)
    command = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full"] * (
        checker == "valgrind")
    assert "every model" in run(*command, program, "--every")


# ---------------------------------------------------------------- hosts

def test_cpp_owns_processors(tmp_path):
    program = tmp_path / "processor"
    run("g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", EXAMPLES / "cpp/processor.cpp",
        f"-I{prefix()}/include", prefix() / "lib/liblbrcore.a", "-o", program)
    assert run(program).splitlines() == [
        "#GP: reserved bits must be 0", "before 20 401005, after 10 0", "rdmsr 401004",
        "#GP beyond the depth", "no model has that name"]


def test_bochs_instrumentation(tmp_path):
    """Against a double of Bochs, whose public hooks it has."""
    double = ROOT / "tests/examples/bochs"
    program = tmp_path / "bochs"
    run("g++", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{prefix()}/include", f"-I{double}",
        EXAMPLES / "bochs/instrument.cc", double / "main.cc", double / "stubs.cc",
        prefix() / "lib/liblbrcore.a", "-o", program)

    def printed(*arguments, **environment):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60,
                              env=environment)
        return done.stderr.splitlines()

    kernel = 0xFFFF800000000000
    branches = [
        (kernel + 0x3000, kernel + 0x3100, 5), (0x2102, kernel + 0x3000, 8),
        (kernel + 0x2000, 0x2102, 8), (0x2102, kernel + 0x2000, 8), (kernel + 0x1000, 0x2100, 8),
        (0x2100, kernel + 0x1000, 8), (0x2007, 0x2100, 0), (0x1000, 0x2000, 4)]
    other = "cpu 1:  0 0x5000 -> 0x6000 type 1"  # and nothing after #DB
    assert printed() == [*(f"cpu 0: {i:2} {source:#x} -> {target:#x} type {kind}"
                           for i, (source, target, kind) in enumerate(branches)), other]
    assert printed("clear the depth") == [other]
    assert len(printed(LBR_MODEL="skylake")) == len(branches) + 1
    assert printed(LBR_CTL="0x80007")[0].endswith("0x1000 -> 0x2000 type 4")
    assert printed(LBR_MODEL="x") == ["LBR_MODEL=x: no model has that name"]
    assert printed(LBR_CTL="0x80") == ["LBR_CTL=0x80: reserved bits must be 0"]


def fib(n, back):
    """(from, to, BR_TYPE) of the guest's fib(n), an own model of its code."""
    if n < 2:
        return [(0x40100E, 0x40101E, 0), (0x40101E, 0x401020, 0), (0x401020, back, 5)]
    return [(0x401013, 0x40100B, 4), *fib(n - 1, 0x401018), (0x40101C, 0x40100B, 2),
            *fib(n - 2, back)]


@pytest.mark.peer
def test_unicorn_in_c(tmp_path):
    needs("/usr/include/unicorn/unicorn.h")
    program = tmp_path / "unicorn"
    run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", EXAMPLES / "c/unicorn.c",
        f"-I{prefix()}/include", prefix() / "lib/liblbrcore.a", "-lunicorn", "-o", program)
    branches = [(0x401005, 0x40100B, 4), *fib(10, 0x40100A)]
    assert run(program).splitlines() == [
        f"{i:2} {source:#x} -> {target:#x} type {kind}"
        for i, (source, target, kind) in enumerate(branches[:-33:-1])]


@pytest.mark.peer
def test_go(tmp_path):
    needs("go")
    shutil.copy(EXAMPLES / "go/main.go", tmp_path)
    program = tmp_path / "main"
    done = subprocess.run(
        ["go", "build", "-o", str(program), "main.go"], cwd=tmp_path, capture_output=True,
        text=True, timeout=600,
        env={**os.environ, "CGO_CFLAGS": f"-I{prefix()}/include", "GOPROXY": "off",
             "CGO_LDFLAGS": str(prefix() / "lib/liblbrcore.a"), "GOCACHE": str(tmp_path / "go")})
    assert done.returncode == 0, done.stderr
    assert run(program).splitlines() == [
        "#GP: reserved bits must be 0 (0x10000000000)",
        "32 records, newest 0x401028 -> 0x402028, oldest 0x401009"]
