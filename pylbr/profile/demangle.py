"""Names of C++ and Rust functions as their source has them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import pydemumble

__all__ = ["demangled"]

#: A symbol table is untrusted: the library recurses over a name, and references within one can
#: double its expansion each.  A name past these limits stays as it is.
_LONGEST: Final = 4096
_MOST_REFERENCES: Final = 40
_REFERENCE: Final = re.compile(r"[ST][0-9A-Z]*_|B[0-9A-Za-z]*_")


@lru_cache(maxsize=1 << 16)
def demangled(name: str) -> str:
    """`name` demangled (Itanium C++, both Rust schemes); unchanged if it is not mangled.

    What follows an ``@``, as in ``_Znwm@plt``, stays.
    """
    mangled, at, rest = name.partition("@")
    if not mangled.startswith(("_Z", "_R")) or len(mangled) > _LONGEST:
        return name
    if len(_REFERENCE.findall(mangled)) > _MOST_REFERENCES:
        return name
    plain = pydemumble.demangle(mangled)
    return plain + at + rest if 0 < len(plain) <= _LONGEST else name
