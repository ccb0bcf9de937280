"""The code of one function with its counts: rows for programs, text for people."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any, Final

from pylbr.errors import CommandError
from pylbr.files.program_text import ProgramText
from pylbr.printable import printable
from pylbr.profile.annotated import Annotated, Block, BlockEdge
from pylbr.profile.lines import LineTables
from pylbr.profile.routines import Leaving, Routine

__all__ = ["chosen", "code_head", "code_rows", "code_text"]

Row = dict[str, Any]
_SHOWN: Final = 8


def chosen(routines: list[Routine], name: str | None) -> Routine:
    """The routine of a name, or of a part of one; the hottest without a name.

    Raises
    ------
    CommandError
        There is none, or several have the part in their names.
    """
    if not routines:
        raise CommandError("no code: of no file with branches in it can the code be read")
    if name is None:
        return routines[0]
    found = [r for r in routines if str(r) == name] or [r for r in routines if name in str(r)]
    if not found:
        raise CommandError(f"--function {name}: no branch was counted in a function of that name; "
                           "pylbr report --by functions lists them")
    if len({(str(r), r.image.path) for r in found}) > 1:
        names = [f"{r} ({os.path.basename(r.image.path)})" for r in found[:_SHOWN]]
        more = ", ..." if len(found) > _SHOWN else ""
        raise CommandError(f"--function {name}: may be any of {', '.join(names)}{more}")
    return found[0]


def _leaving(code: Annotated) -> dict[int, list[Leaving]]:
    """Taken branches by the index of their instruction, the most frequent first."""
    found: dict[int, list[Leaving]] = defaultdict(list)
    for leaving in code.routine.leaving:
        found[code.index(leaving.source)].append(leaving)
    for branches in found.values():
        branches.sort(key=lambda branch: -branch.count)
    return found


def _mean(block: Block, code: Annotated) -> float | None:
    timed = int(code.timed[block.first:block.last + 1].max())
    return None if block.cycles is None or not timed else block.cycles / timed


def code_rows(code: Annotated, tables: LineTables, predictions: bool) -> Row:
    """Instructions, blocks and the ways between them.

    Parameters
    ----------
    code : Annotated
    tables : LineTables
    predictions : bool
        Whether mispredicts were recorded; else they are None.
    """
    leaving = _leaving(code)
    blocks, edges = code.blocks()
    instructions = []
    for i, one in enumerate(code.instructions):
        line = tables.at(code.routine, one.address)
        instructions.append({
            "address": f"{one.address:#x}", "instruction": one.text, "count": int(code.counts[i]),
            "line": f"{line.file}:{line.line}" if line else None,
            "branches": [{
                "to": f"{branch.target.address:#x}", "to_symbol": str(branch.target),
                "count": branch.count, "mispredicted": branch.mispredicted if predictions else None,
            } for branch in leaving.get(i, [])],
        })  # fmt: skip
    return {
        "function": str(code.routine), "file": code.routine.image.path,
        "instructions": instructions,
        "blocks": [_block_row(block, code) for block in blocks],
        "edges": [_edge_row(edge, predictions) for edge in edges],
    }


def _block_row(block: Block, code: Annotated) -> Row:
    return {
        "first": f"{code.instructions[block.first].address:#x}",
        "last": f"{code.instructions[block.last].address:#x}", "count": block.count,
        "cycles": None if block.cycles is None else round(block.cycles),
        "mean_cycles": _mean(block, code),
    }


def _edge_row(edge: BlockEdge, predictions: bool) -> Row:
    return {"from_block": edge.source, "to_block": edge.target, "count": edge.count,
            "taken": edge.taken,
            "mispredicted": edge.mispredicted if predictions and edge.taken else None}


def code_head(code: Annotated) -> list[str]:
    """What the function is, as lines."""
    routine = code.routine
    return [f"{printable(str(routine))} in {printable(routine.image.path)}: "
            f"{routine.branches:,} taken branches, entered {routine.entered:,} times, "
            f"{len(code.blocks()[0])} blocks were executed"]


def code_text(code: Annotated, tables: LineTables, predictions: bool) -> list[str]:
    """Lines: source, then its instructions with passes, cycles per pass of each block, and where
    branches lead."""
    leaving = _leaving(code)
    means = {block.first: _mean(block, code) for block in code.blocks()[0]}
    texts = ProgramText()
    lines = [f"{'count':>12}  {'cycles/pass':>11}  {'address':>8}  instruction"]
    before = None
    skipped = 0
    for i, one in enumerate(code.instructions):
        if not code.counts[i] and i not in leaving:
            skipped += 1
            continue
        if skipped:
            lines.append(f"{'':>23}  {'':>8}  ... {skipped} instructions that no run passes")
            skipped, before = 0, None
        line = tables.at(code.routine, one.address)
        if line is not None and line != before:
            text = texts.line(*line) or ""
            lines.append(f"{printable(os.path.basename(line.file))}:{line.line}  "
                         f"{printable(text)}".rstrip())
            before = line
        mean = means.get(i, "")
        shown = mean if isinstance(mean, str) else "n/a" if mean is None else f"{mean:.1f}"
        lines.append(f"{code.counts[i]:>12,}  {shown:>11}  {one.address:>8x}  "
                     f"{printable(one.text)}")
        lines += [_branch_text(code, i, branch, predictions) for branch in leaving.get(i, [])]
    if skipped:
        lines.append(f"{'':>23}  {'':>8}  ... {skipped} instructions that no run passes")
    return lines


def _branch_text(code: Annotated, at: int, branch: Leaving, predictions: bool) -> str:
    """A taken branch: how often, where to, how often mispredicted."""
    passes = int(code.counts[at])
    share = f" ({branch.count / passes:.1%})" if passes >= branch.count > 0 else ""
    place = f"{branch.target.address:x}" if code.routine.holds(branch.target) else (
        printable(str(branch.target)))
    missed = f", {branch.mispredicted / branch.count:.1%} mispredicted" if predictions else ""
    return f"{'':>35}  -> {branch.count:,}{share} to {place}{missed}"
