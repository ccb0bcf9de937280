"""Which tests are nearest to a source, and which modules inline a header of Cython."""

from __future__ import annotations

__all__ = ["INLINED_IN", "NEAREST", "nearest"]

_CORE = ("tests/core/test_twin.py", "tests/core/test_facility.py", "tests/core/test_table.py",
         "tests/core/test_bad_input.py", "tests/core/test_borders.py", "tests/cpu/test_select.py",
         "tests/cpu/test_twin.py", "tests/cpu/test_recording.py", "tests/cpu/test_events.py")
_REPLAY = ("tests/replay", "tests/sample/test_engines.py", "tests/core/test_bad_input.py")
_POLICY = ("tests/verify/test_search.py", "tests/verify/test_guards.py",
           "tests/verify/test_contract.py", "tests/verify/test_bugs.py",
           "tests/verify/test_nested.py", "tests/verify/test_pebs.py", "tests/verify/test_pmi.py",
           "tests/verify/test_stack.py", "tests/verify/test_story.py",
           "tests/verify/test_plain.py", "tests/verify/test_simulation.py",
           "tests/verify/test_merged.py", "tests/kvm")
_CPU = ("tests/cpu", "tests/kvm")
_READERS = ("tests/trace",)
_PERF = ("tests/perf", "tests/trace")

#: A source, or a directory of them -> tests.
NEAREST: dict[str, tuple[str, ...]] = {
    "lbrcore/lbr.pyx": (*_CORE, "tests/api/test_shown.py", "tests/core/test_narrowing.py"),
    "lbrcore/lbr.pxd": (*_CORE, *_REPLAY),
    "lbrcore/control.pyx": _CORE,
    "lbrcore/batch.pyx": _CORE,
    "lbrcore/xsave.pyx": ("tests/core", "tests/cpu/test_state.py", "tests/cpu/test_events.py",
                          "tests/cpu/test_twin.py"),
    "lbrcore/": _REPLAY,
    "pylbr/arbitration/": _POLICY,
    "pylbr/cpu/": _CPU,
    "pylbr/trace/": _READERS,
    "pylbr/perf/": _PERF,
    "pylbr/files/": (*_READERS, "tests/perf"),
    "pylbr/embed/": ("tests/embed", "tests/kvm"),
    "pylbr/verify/": ("tests/verify",),
}

#: A header with inline functions -> modules whose tests show what it does.
INLINED_IN = {"lbrcore/lbr.pxd": ["lbrcore/lbr.pyx", "lbrcore/batch.pyx", "lbrcore/control.pyx",
                                  "lbrcore/callstack.pyx", "lbrcore/lookback.pyx",
                                  "lbrcore/replay.pyx", "lbrcore/summary.pyx"]}


def nearest(file: str) -> tuple[str, ...]:
    """Tests of `file`.

    Raises
    ------
    KeyError
        None are listed.
    """
    fitting = [name for name in NEAREST if file == name or name.endswith("/")
               and file.startswith(name)]
    if not fitting:
        raise KeyError(f"{file}: tests/mutants/targets.py lists no tests")
    return NEAREST[max(fitting, key=len)]
