"""Build of the compiled part.

LBRCORE_SAFE=1 builds with bounds checks, LBRCORE_TRACE=1 for line coverage of the .pyx;
LBRCORE_FLAGS has more flags of the compiler, as a sanitizer takes them, after those given here.
PYLBR_BUILT_APART=1: pip installs names and scripts alone, `build_ext --inplace` runs beside it.
"""

import contextlib
import os
import runpy
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

SAFE = os.environ.get("LBRCORE_SAFE") == "1"
TRACE = os.environ.get("LBRCORE_TRACE") == "1"

#: Commands that ask for names and files need no C.
PASSIVE = bool({"sdist", "egg_info", "dist_info"} & set(sys.argv))
APART = os.environ.get("PYLBR_BUILT_APART") == "1"

# The policies once more, with switches that leave their guards out.
if not APART:
    runpy.run_path("pylbr/verify/weave.py", run_name="__main__")

#: Every .pyx is an extension.
EXTENSIONS = sorted(
    ".".join(path.with_suffix("").parts)
    for package in ("lbrcore", "pylbr") for path in Path(package).rglob("*.pyx"))

# A checkout may hold extensions of modules that have since been renamed; they would be imported.
for package in ("lbrcore", "pylbr"):
    for built in Path(package).rglob("*.so"):
        if not built.with_name(built.name.split(".")[0] + ".pyx").exists() and (
                built.name.split(".")[0] != "_cyutility"):
            built.unlink()

FLAGS = {
    # A caller has just stored FROM and TO one by one; one load of both would wait for them.
    "lbrcore.capi": ["-fno-tree-slp-vectorize"],
}

#: Directories of further headers: of what reads the memory that the recorder's plugin writes, and
#: of x86 instructions.
HEADERS = {
    **dict.fromkeys(["pylbr.record._blocks", "pylbr.record._drain", "pylbr.record._numbered",
                     "pylbr.record._wire", "pylbr.record.native.full._expand",
                     "pylbr.record.native.full._numbered_ways"],
                    ["pylbr/record/plugin"]),
    **dict.fromkeys(["pylbr.x86.blocks", "pylbr.x86.compiled_facts", "pylbr.record._passed",
                     "pylbr.embed.timestamp"], ["pylbr/x86"]),
    **dict.fromkeys(["pylbr.trace._edges", "pylbr.trace._small", "pylbr.trace._walk"],
                    ["pylbr/trace"]),
    "pylbr.x86.describe": ["pylbr/x86"],
    "pylbr.cpu.compiled.lookup": ["lbrcore/library"],
}
#: Modules whose C is for liblbrcore alone, which is compiled on its own: nothing calls them.
OF_LIBRARY = {name for name in EXTENSIONS if ".compiled." in name
              or name in ("lbrcore.kind", "pylbr.x86.describe")}
#: Compiled with half the time of -O3: no loop whose speed is published runs there.
COLD = {"lbrcore._cyutility", "lbrcore.choices", "lbrcore.internal_state", "pylbr.kvm.nested",
        "pylbr.record._wire", "pylbr.sister.brbe", "pylbr.sister.ctr", "pylbr.sister.facility",
        "pylbr.verify._mutants", "pylbr.verify.replay"}

#: A search takes a hundred million steps, and a traced line takes the GIL.
UNTRACED = "pylbr.verify.", "pylbr.arbitration."


def extension(name: str, suffix: str = ".pyx") -> Extension:
    return Extension(
        name,
        [name.replace(".", "/") + suffix],
        include_dirs=["lbrcore/include", *HEADERS.get(name, [])],
        depends=["lbrcore/include/lbrcore.h",
                 *(str(header) for place in HEADERS.get(name, [])
                   for header in [*Path(place).glob("*.h"), *Path(place).glob("models.c")]),
                 *(["lbrcore/include/lbrcore_cpu.h"] if name in OF_LIBRARY else [])],
        define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE and suffix == ".pyx"
        and not name.startswith(UNTRACED) else [],
        # No debug information: it would double the time and the size.
        extra_compile_args=["-O0" if name in OF_LIBRARY else "-O1" if name in COLD else "-O3",
                            "-g0", "-Wall", "-Wno-unused-function", "-Wno-cpp"]
        + FLAGS.get(name, []) + os.environ.get("LBRCORE_FLAGS", "").split(),
    )


def report(line: str) -> None:
    """Write to the file that PYLBR_PROGRESS names: pip shows nothing of a build."""
    name = os.environ.get("PYLBR_PROGRESS")
    if name:
        with contextlib.suppress(OSError), open(name, "a") as file:
            file.write(f"  {line}\n")


class BuildExtensions(build_ext):
    """The extensions, liblbrcore of the C that Cython made of them, and, for a wheel, what the
    recorder runs in other processes.
    """

    _begun = 0.0

    def build_extension(self, ext: Extension) -> None:
        super().build_extension(ext)
        self._done.append(ext)
        whole, done = (sum(os.path.getsize(one.sources[0]) for one in several)
                       for several in (self.extensions, self._done))
        left = (time.monotonic() - self._begun) * (whole / done - 1)
        report(f"compiled {len(self._done)} of {len(self.extensions)}, {left:.0f} s left: "
               f"{ext.name}")

    def run(self) -> None:
        self._begun = time.monotonic()
        self._done: list[Extension] = []
        with ThreadPoolExecutor(1) as beside:
            # Traced C names Python.
            library = beside.submit(self._library) if self.extensions and not TRACE else None
            super().run()
            if library is not None:
                library.result()
        if not self.inplace and not TRACE:
            runpy.run_path("pylbr/record/parts.py")["main"](Path(self.build_lib, "pylbr"))

    def _library(self) -> None:
        target = Path("." if self.inplace else self.build_lib, "lbrcore", "lib").resolve()
        subprocess.run([sys.executable, "lbrcore/library/amalgamate.py", str(target)], check=True)
        if shutil.which("make") is None:
            print("liblbrcore is left out: make is missing", file=sys.stderr)
            return
        subprocess.run(["make", "-s", "-C", "lbrcore/library", f"SOURCE={target}", "libraries"],
                       check=True)


class SourceArchive(sdist):
    """What MANIFEST.in names, without the C that Cython makes."""

    def prune_file_list(self) -> None:
        super().prune_file_list()
        self.filelist.files = [name for name in self.filelist.files
                               if not (name.endswith(".c") and Path(name[:-2] + ".pyx").exists())]


def modules() -> list[Extension]:
    """What is compiled, the longest first: the cores then end together."""
    report(f"making C of {len(EXTENSIONS)} modules")
    made = cythonize(
        [extension(name) for name in EXTENSIONS]
        + [extension("lbrcore._cyutility", ".c")],
        shared_utility_qualified_name="lbrcore._cyutility",
        nthreads=os.cpu_count(),
        force="--force" in sys.argv,  # other directives make other C of the same source
        show_all_warnings=True,
        compiler_directives={
            "language_level": 3,
            "boundscheck": SAFE,
            "initializedcheck": SAFE,
            "wraparound": False,
            "cdivision": True,
            "linetrace": TRACE,
        },
    )
    return sorted(made, key=lambda module: -os.path.getsize(module.sources[0]))


setup(
    cmdclass={"build_ext": BuildExtensions, "sdist": SourceArchive},
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=[] if PASSIVE or APART else modules(),
)
