"""Man pages and shell completions, made of the parsers: DIRECTORY/man, DIRECTORY/completions.

``python tools/manual.py build``; `make manual` does the same.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import version
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from pylbr.arch import MODELS
from pylbr.cli import COMMANDS, parser_of

MACROS = ("TH", "SH", "TP", "B", "nf", "fi")
#: What a shell completes where an argument is called so.
FILES = {"FILE", "IN", "OUT", "TRACE", "ELF", "GUEST.elf", "PROGRAM ...", "FILE[@ADDRESS]"}
FOLDERS = {"FOLDER", "DIRECTORY", "DIR"}
SHELLS = {"bash": "pylbr.bash", "zsh": "_pylbr", "fish": "pylbr.fish"}
EXIT_STATUS = """
0      done; of pylbr record and pylbr linux, the program's own
1      the command's negative answer: a property that does not hold, nothing found
2      a mistake in the call, the input or the output
128+N  ended by signal N
"""


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands; `parser` keeps them."""
    (action,) = (action for action in parser._actions
                 if isinstance(action, argparse._SubParsersAction))
    return action.choices


def as_is(text: str) -> str:
    """Text whose lines stay as they are."""
    return f".nf\n{text.strip(chr(10))}\n.fi".replace("\\", r"\e").replace("-", r"\-")


def page(parser: argparse.ArgumentParser, name: str, summary: str, see: list[str]) -> str:
    """The man page of one parser; its epilog is kept line by line."""
    epilog, parser.epilog = parser.epilog, None
    made = Manpage(parser)
    made.prog, made.description = name, summary
    made.source, made.manual = f"pylbr {version('pylbr')}", "pylbr"
    if epilog:
        made.add_section("notes", ">", as_is(epilog))
    if name == "pylbr":
        made.add_section("exit status", ">", as_is(EXIT_STATUS))
    made.add_section("see also", ">", ", ".join(f"\\fB{other}\\fR(1)" for other in see))
    made.synopsis = [made.synopsis[0], *(word.replace("-", r"\-") for word in made.synopsis[1:])]
    head, *lines = str(made).splitlines()
    # A line of text may begin with a full stop, as suffixes do: it is no request.
    known = re.compile(rf"\.(?:{'|'.join(MACROS)})(?: |$)")
    lines = [f"\\&{line}" if line[:1] in (".", "'") and not known.match(line) else line
             for line in lines]
    return "\n".join([head, ".ad l", *lines, ""])


def pages() -> dict[str, str]:
    """Every man page by the name of its file."""
    names = {name: f"pylbr-{name}" for name in COMMANDS}
    made = {}
    for name, parser in parsers(parser_of(*COMMANDS)).items():
        made[f"{names[name]}.1"] = page(parser, names[name], COMMANDS[name], ["pylbr"])
    whole = parser_of()
    parsers(whole).clear()  # each has a page of its own
    made["pylbr.1"] = page(whole, "pylbr", "last-branch records in software", [*names.values()])
    return made


def completions() -> dict[str, str]:
    """The completion of every shell by the name of its file."""
    parser = parser_of(*COMMANDS)
    for command in parsers(parser).values():
        for action in command._actions:
            if action.metavar in FILES:
                action.complete = shtab.FILE
            elif action.metavar in FOLDERS:
                action.complete = shtab.DIRECTORY
            elif "--cpu" in action.option_strings:
                action.choices = list(MODELS)
    return {name: shtab.complete(parser, shell) for shell, name in SHELLS.items()}


def main(directory: str) -> None:
    """Write all of it."""
    for folder, texts in (("man", pages()), ("completions", completions())):
        target = Path(directory) / folder
        target.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (target / name).write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: tools/manual.py DIRECTORY")
    main(sys.argv[1])
