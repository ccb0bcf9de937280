"""The code of a routine, for the page: rows that were executed, blocks, and the ways between."""

from __future__ import annotations

from typing import Any, Final

from pylbr.files.program_text import ProgramText
from pylbr.html.texts import Texts
from pylbr.profile.annotated import Annotated, Block
from pylbr.profile.lines import LineTables

__all__ = ["CodeWriter"]

_CONTEXT: Final = 2    # lines of source around those with instructions
_MOST_BLOCKS: Final = 120
_MOST_LINES: Final = 600
Row = dict[str, Any]


class CodeWriter:
    """Turns routines into what the page draws.

    Parameters
    ----------
    texts : Texts
    predictions : bool
        Whether mispredicts were recorded.
    """

    def __init__(self, texts: Texts, predictions: bool) -> None:
        self._texts, self._predictions = texts, predictions
        self._source = ProgramText()

    def code(self, code: Annotated, tables: LineTables) -> Row:
        """The code of one routine; `targets` are filled in when all routines have numbers."""
        number, rows = self._rows(code)
        source, lines = self._lines(code, tables)
        for at, row in number.items():
            line = tables.at(code.routine, code.instructions[at].address)
            rows[row].append(lines.get(line, -1) if line else -1)
        blocks, flow, every = _blocks(code, number, self._predictions)
        ways: list[list[Any]] = []
        out: list[list[Any]] = []
        for leaving in code.routine.leaving:
            source_row = number[code.index(leaving.source)]
            missed = leaving.mispredicted if self._predictions else None
            if code.routine.holds(leaving.target):
                ways.append([source_row, number[code.index(leaving.target.address)],
                             leaving.count, missed])
            else:
                out.append([source_row, self._texts.number(str(leaving.target)), leaving.count,
                            missed, leaving.target])
        out.sort(key=lambda way: -way[2])
        return {
            "name": self._texts.shown(str(code.routine)), "start": code.routine.start,
            "rows": rows, "ways": ways, "out": out, "source": source, "blocks": blocks,
            "flow": flow, "allBlocks": every,
            "means": {number[block.first]: _mean(block, code) for block in code.blocks()[0]},
        }

    def _rows(self, code: Annotated) -> tuple[dict[int, int], list[list[Any]]]:
        """Index of each instruction among the rows, and the rows: of an instruction its offset,
        text and passes, of several that nothing passes how many they are."""
        kept = {int(i) for i in code.counts.nonzero()[0]}
        kept |= {code.index(leaving.source) for leaving in code.routine.leaving}
        kept |= {code.index(leaving.target.address) for leaving in code.routine.leaving
                 if code.routine.holds(leaving.target)}
        number: dict[int, int] = {}
        rows: list[list[Any]] = []
        skipped = 0
        for i, one in enumerate(code.instructions):
            if i not in kept:
                skipped += 1
                continue
            if skipped:
                rows.append([skipped])
                skipped = 0
            number[i] = len(rows)
            rows.append([one.address - code.routine.start, self._texts.number(one.text),
                         int(code.counts[i])])
        if skipped:
            rows.append([skipped])
        return number, rows

    def _lines(self, code: Annotated, tables: LineTables) -> tuple[list[list[Any]], dict[Any, int]]:
        """Source lines with those around them, and the index of each that has instructions."""
        weights: dict[Any, float] = {}
        for i, one in enumerate(code.instructions):
            line = tables.at(code.routine, one.address)
            if line is not None and code.counts[i]:
                weight = code.counts[i] if code.cycles is None else code.cycles[i]
                weights[line] = weights.get(line, 0.0) + float(weight)
        if not any(self._source.lines(line.file) for line in weights):
            return [], {}
        wanted: set[tuple[str, int]] = set()
        for file, number in sorted(weights, key=lambda line: -weights[line])[:_MOST_LINES]:
            length = len(self._source.lines(file))
            wanted |= {(file, near) for near in range(number - _CONTEXT, number + _CONTEXT + 1)
                       if 0 < near <= length} | {(file, number)}
        heaviest: dict[str, float] = {}
        for (file, _), weight in weights.items():
            heaviest[file] = heaviest.get(file, 0.0) + weight
        rows: list[list[Any]] = []
        index: dict[Any, int] = {}
        for file, number in sorted(wanted, key=lambda key: (-heaviest[key[0]], key)):
            lines = self._source.lines(file)
            text = lines[number - 1].expandtabs() if number <= len(lines) else None
            found = next((line for line in weights if line == (file, number)), None)
            if found is not None:
                index[found] = len(rows)
            rows.append([self._texts.number(file), number,
                         None if text is None else self._texts.number(text.rstrip()),
                         round(weights[found], 1) if found else None])
        return rows, index


def _mean(block: Block, code: Annotated) -> float | None:
    timed = int(code.timed[block.first:block.last + 1].max())
    return None if block.cycles is None or not timed else round(block.cycles / timed, 1)


def _blocks(code: Annotated, number: dict[int, int], predictions: bool) -> tuple[
        list[list[Any]], list[list[Any]], int]:
    """The hottest blocks, as rows, the ways between them, and how many blocks there are."""
    blocks, edges = code.blocks()
    kept = sorted(sorted(range(len(blocks)), key=lambda i: -blocks[i].count)[:_MOST_BLOCKS])
    place = {block: at for at, block in enumerate(kept)}
    rows = [[number[blocks[i].first], number[blocks[i].last], blocks[i].count,
             _mean(blocks[i], code)] for i in kept]
    flow = [[place[e.source], place[e.target], e.count,
             e.mispredicted if predictions and e.taken else None, int(e.taken)]
            for e in edges if e.source in place and e.target in place]
    return rows, flow, len(blocks)
