"""Exit codes of every command, as its help and its man page list them."""

from __future__ import annotations

from typing import Final

__all__ = ["CODES", "listed"]

#: Command -> code -> when; codes that are not here are those of `_ALL`.
CODES: Final[dict[str, dict[str, str]]] = {
    "record": {"": "the program's own",
               "1": "the file has no sample, of a program that ended with 0"},
    "optimize": {"1": "the program failed, or a step of BOLT"},
    "doctor": {"1": "a consumer makes nothing of the recording"},
    "run": {"": "the guest's, 255 for a larger one; 0 also after HLT with interrupts off",
            "1": "--save, and the run ended before --pause",
            "124": "a limit was reached",
            "134": "a triple fault, or something from which the machine cannot continue; a report "
                   "is on standard error"},
    "linux": {"": "the command's", "124": "a limit was reached",
              "134": "the guest's kernel panicked, or the machine cannot continue; a report is on "
                     "standard error"},
    "verify": {"1": "a policy breaks a property that it must hold"},
    "selftest": {"1": "a test failed that the policy promises"},
    "msr": {"1": "a WRMSR of the value faults"},
}
_ALL: Final = {
    "0": "done",
    "2": "a mistake in the call, the input or the output; one line on standard error names it",
    "128+N": "ended by signal N",
}


def listed(command: str) -> str:
    """The codes of a command, one per line."""
    own = CODES.get(command, {})
    codes = {**({"0": _ALL["0"]} if "" not in own else {}), **own, "2": _ALL["2"],
             "128+N": _ALL["128+N"]}
    return "exit codes:\n" + "".join(f"  {code or 'else':<6} {when}\n" for code, when in sorted(
        codes.items(), key=lambda pair: (pair[0] == "", pair[0] == "128+N", len(pair[0]), pair[0])))
