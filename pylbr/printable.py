"""Text from files on its way to a terminal, or into text that is read line by line."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["printable"]

#: Control characters of ASCII and of Latin-1 (C0, DEL, C1), line and paragraph separators,
#: and those that change the direction of writing.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str, keep_bytes: bool = False) -> str:
    r"""`text` with what a terminal would act on as ``\x1b`` or ``\u2028``.

    Parameters
    ----------
    text : str
    keep_bytes : bool
        Leave bytes that are not UTF-8 (as ``surrogateescape`` reads them) as they are.
    """
    text = _UNSAFE.sub(_escaped, text)
    if keep_bytes:
        return text
    return re.sub("[\ud800-\udfff]", _escaped_byte, text)


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def _escaped_byte(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"
