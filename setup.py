"""Build of the compiled part.

LBRCORE_SAFE=1 builds with bounds checks, LBRCORE_TRACE=1 for line coverage of the .pyx.
"""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

SAFE = os.environ.get("LBRCORE_SAFE") == "1"
TRACE = os.environ.get("LBRCORE_TRACE") == "1"

EXTENSIONS = [
    "lbrcore.buffers",
    "lbrcore.batch",
    "lbrcore.callstack",
    "lbrcore.choices",
    "lbrcore.columns",
    "lbrcore.control",
    "lbrcore.hidden",
    "lbrcore.lbr",
    "lbrcore.pmu",
    "lbrcore.predictor",
    "lbrcore.lookback",
    "lbrcore.replay",
    "lbrcore.rows",
    "lbrcore.scan",
    "lbrcore.summary",
    "lbrcore.xsave",
    "lbrcore.capi",
    "lbrcore.blocks",
    "pylbr.trace._brstack",
    "pylbr.trace._perf_sample",
    "pylbr.profile._aggregate",
    "pylbr.profile._entries",
    "pylbr.profile._perfdata",
    "pylbr.profile._text",
    "pylbr.record._blocks",
    "pylbr.record._drain",
    "pylbr.cpu.hardware",
    "pylbr.host.perf",
    "pylbr.kvm.nested",
    "pylbr.arbitration.system",
    "pylbr.arbitration.owned",
    "pylbr.arbitration.request",
    "pylbr.arbitration.mediated",
    "pylbr.arbitration.lease",
    "pylbr.arbitration.vlbr",
    "pylbr.arbitration.kvm_legacy",
    "pylbr.arbitration.arch_lbr_v2",
    "pylbr.arbitration.shared",
    "pylbr.verify.ideal",
    "pylbr.verify.world",
    "pylbr.verify.properties",
    "pylbr.verify.codec",
    "pylbr.verify.explore",
    "pylbr.verify.replay",
    "pylbr.verify.walk",
    "pylbr.verify.sessions",
    "pylbr.verify.simulation",
]

FLAGS = {
    # A caller has just stored FROM and TO one by one; one load of both would wait for them.
    "lbrcore.capi": ["-fno-tree-slp-vectorize"],
}


def extension(name: str) -> Extension:
    return Extension(
        name,
        [name.replace(".", "/") + ".pyx"],
        include_dirs=["lbrcore/include", "pylbr/record"],
        depends=["lbrcore/include/lbrcore.h", "pylbr/record/wire.h"],
        define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
        # No debug information: it would double the time and the size.
        extra_compile_args=["-O3", "-g0", "-Wall", "-Wno-unused-function", "-Wno-cpp"]
        + FLAGS.get(name, []),
    )


setup(
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=cythonize(
        [extension(name) for name in EXTENSIONS]
        + [Extension("lbrcore._cyutility", ["lbrcore/_cyutility.c"])],
        shared_utility_qualified_name="lbrcore._cyutility",
        nthreads=os.cpu_count(),
        force="--force" in sys.argv,  # other directives make other C of the same source
        show_all_warnings=True,
        compiler_directives={
            "language_level": 3,
            "embedsignature": True,
            "embedsignature.format": "python",
            "boundscheck": SAFE,
            "initializedcheck": SAFE,
            "wraparound": False,
            "cdivision": True,
            "linetrace": TRACE,
        },
    )
)
