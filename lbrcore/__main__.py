"""Where liblbrcore is: ``cc example.c $(python -m lbrcore --cflags --libs)``."""

from __future__ import annotations

import argparse
from pathlib import Path

from lbrcore import get_include, get_library

__all__ = ["main"]


def main() -> None:
    """Print the compiler's options in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m lbrcore", description="Compiler options for liblbrcore, which needs no "
        "Python when the program runs.")
    parser.add_argument("--cflags", action="store_true", help="where the headers are")
    parser.add_argument("--libs", action="store_true", help="the shared library")
    parser.add_argument("--static", action="store_true", help="the static library instead")
    given = parser.parse_args()
    if not (given.cflags or given.libs or given.static):
        parser.error("give --cflags, --libs or --static")
    library = Path(get_library())
    if not (library / "liblbrcore.a").exists():
        parser.exit(1, f"python -m lbrcore: {library} has no liblbrcore: make was missing when "
                    "the package was built; install make and build it again\n")
    words = []
    if given.cflags:
        words += [f"-I{get_include()}", f"-I{library}"]
    if given.static:
        words.append(str(library / "liblbrcore.a"))
    elif given.libs:
        words += [f"-L{library}", f"-Wl,-rpath,{library}", "-l:liblbrcore.so.1"]
    print(" ".join(words))


if __name__ == "__main__":
    main()
