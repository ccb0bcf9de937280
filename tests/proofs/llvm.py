"""A symbolic interpreter of the LLVM IR that clang makes of liblbrcore's C file.

One function is run on symbolic arguments and memory, all its ways at once: where ways meet, values
and memory become ``If`` terms of z3, so that one formula tells what the function does.  Only what
the facility's functions consist of is understood; anything else is an error, never a guess.
Loops are unrolled; one whose end depends on symbols does not end, and is an error as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import z3

__all__ = ["Memory", "Module", "Pointer", "Unknown"]

MOST_BLOCKS = 20_000
FEW_ROUNDS = 10  # of a loop, before the solver is asked whether there can be one more
_NAME = r'[%@][-\w.$"]+'


class Unknown(Exception):
    """The code does something that the interpreter has no meaning for."""


@dataclass(frozen=True)
class Pointer:
    """Address: an object, a constant offset in bytes and at most one symbolic element number."""

    place: str | None                   # None: the null pointer
    offset: int = 0
    number: z3.BitVecRef | None = None  # of an element of `stride` bytes, counted from `offset`
    stride: int = 0


@dataclass(frozen=True)
class Table:
    """The records of a state: one z3 array a word, so that a symbolic slot number is possible."""

    slots: int
    words: int

    @property
    def size(self) -> int:
        return 8 * self.slots * self.words


@dataclass
class Memory:
    """Bytes by object, as cells (offset -> term), and arrays of records at offset 0 of `tables`."""

    cells: dict[str, dict[int, z3.BitVecRef]] = field(default_factory=dict)
    arrays: dict[str, list[z3.ArrayRef]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)

    def copy(self) -> Memory:
        return Memory({name: dict(cells) for name, cells in self.cells.items()},
                      {name: list(rows) for name, rows in self.arrays.items()}, self.tables)

    def add(self, name: str, size: int, table: Table | None = None) -> None:
        """A new object of `size` bytes, all of them unknown."""
        start = 0
        if table:
            bits = (table.slots - 1).bit_length()
            self.tables = {**self.tables, name: table}
            self.arrays[name] = [
                z3.Array(f"{name}.{word}", z3.BitVecSort(bits), z3.BitVecSort(64))
                for word in range(table.words)]
            start = table.size
        self.cells[name] = {
            at: z3.BitVec(f"{name}+{at}", 8) for at in range(start, size)}

    def _slot(self, at: Pointer, size: int) -> tuple[Table, int, z3.BitVecRef] | None:
        """(table, word, slot) of an address among the records."""
        table = self.tables.get(at.place)
        if table is None or (at.number is None and at.offset >= table.size):
            if at.number is not None:
                raise Unknown(f"a symbolic element of {at.place}")
            return None
        row = 8 * table.words
        if size != 8 or at.offset % 8 or (at.number is not None and at.stride != row):
            raise Unknown(f"{size} bytes at {at} among the records")
        bits = (table.slots - 1).bit_length()
        number = z3.BitVecVal(at.offset // row, bits)
        if at.number is not None:
            number = number + z3.Extract(bits - 1, 0, at.number)
        return table, at.offset % row // 8, z3.simplify(number)

    def load(self, at: Pointer, size: int) -> z3.BitVecRef:
        if slot := self._slot(at, size):
            return self.arrays[at.place][slot[1]][slot[2]]
        cells = self.cells[at.place]
        if at.offset in cells and cells[at.offset].size() == 8 * size:
            return cells[at.offset]
        self._split(cells, at.offset, size)
        parts = [cells[at.offset + i] for i in reversed(range(size))]
        return z3.simplify(z3.Concat(*parts)) if size > 1 else parts[0]

    def store(self, at: Pointer, value: z3.BitVecRef) -> None:
        size = value.size() // 8
        if slot := self._slot(at, size):
            rows = self.arrays[at.place]
            rows[slot[1]] = z3.Store(rows[slot[1]], slot[2], value)
            return
        cells = self.cells[at.place]
        self._split(cells, at.offset, size)
        for i in range(size):
            del cells[at.offset + i]
        cells[at.offset] = value

    @staticmethod
    def _split(cells: dict[int, z3.BitVecRef], at: int, size: int) -> None:
        """Turn the cells that touch [at, at + size) into single bytes."""
        for start in [start for start, cell in cells.items()
                      if start < at + size and start + cell.size() // 8 > at]:
            cell = cells.pop(start)
            for i in range(cell.size() // 8):
                cells[start + i] = z3.simplify(z3.Extract(8 * i + 7, 8 * i, cell))
        if any(i not in cells for i in range(at, at + size)):
            raise Unknown(f"bytes {at} to {at + size} are outside their object")

    def fill(self, at: Pointer, value: int, size: int) -> None:
        table = self.tables.get(at.place)
        if at.number is not None:
            raise Unknown("memset at a symbolic place")
        if table and at.offset < table.size:
            if at.offset or size < table.size or value:
                raise Unknown("memset of a part of the records")
            rows = self.arrays[at.place]
            for word, row in enumerate(rows):
                rows[word] = z3.K(row.sort().domain(), z3.BitVecVal(0, 64))
            at, size = Pointer(at.place, table.size), size - table.size
        for i in range(size):
            self.store(Pointer(at.place, at.offset + i), z3.BitVecVal(value, 8))

    def move(self, to: Pointer, source: Pointer, size: int) -> None:
        step = 8 if size % 8 == 0 else 1  # records are read and written in words
        data = [self.load(replace(source, offset=source.offset + i), step)
                for i in range(0, size, step)]
        for i, value in enumerate(data):
            self.store(replace(to, offset=to.offset + step * i), value)


def _either(condition: z3.BoolRef, one, other):
    """`one` where the condition holds, else `other`; of terms, pointers and plain values."""
    if one is other or (not isinstance(one, z3.ExprRef) and one == other):
        return one
    if isinstance(one, z3.ExprRef) and isinstance(other, z3.ExprRef):
        return one if one.eq(other) else z3.If(condition, one, other)
    raise Unknown(f"either {one} or {other}")


def _merge(condition: z3.BoolRef, one: Memory, other: Memory) -> Memory:
    """Memory that is `one` where the condition holds."""
    merged = Memory({}, {}, {**one.tables, **other.tables})
    for name in one.cells.keys() & other.cells.keys():
        ours, theirs = dict(one.cells[name]), dict(other.cells[name])
        for at in ours.keys() | theirs.keys():
            widths = {cells[at].size() // 8 if at in cells else 1 for cells in (ours, theirs)}
            if len(widths) > 1 or at not in ours or at not in theirs:
                # The two are cut differently here: byte by byte.
                Memory._split(ours, at, max(widths))
                Memory._split(theirs, at, max(widths))
        merged.cells[name] = {
            at: _either(condition, cell, theirs[at]) for at, cell in ours.items()}
    for name in one.arrays.keys() & other.arrays.keys():
        merged.arrays[name] = [_either(condition, a, b) for a, b in
                               zip(one.arrays[name], other.arrays[name], strict=True)]
    return merged


@dataclass
class _Way:
    """One or more ways that reach a block: when, from where, and what holds then."""

    condition: z3.BoolRef
    values: dict[str, object]
    memory: Memory


@dataclass
class Function:
    name: str
    arguments: list[str]
    blocks: dict[str, list[str]]


class Module:
    """Functions and types of one file of LLVM IR with typed pointers (clang 14)."""

    def __init__(self, text: str) -> None:
        self.types: dict[str, list[str]] = {}
        self.constants: dict[str, int] = {}
        self.functions: dict[str, Function] = {}
        self._calls = 0
        for name, body in re.findall(r"^(%[\w.]+) = type \{(.*)\}$", text, re.M):
            self.types[name] = _split_list(body)
        for name, value in re.findall(r"^@(\w+) = .*constant i64 (\d+)", text, re.M):
            self.constants[name] = int(value)
        for head, body in re.findall(r"^define (.*?\)) [^\n]*\{\n(.*?)^\}$", text, re.M | re.S):
            name, arguments = re.search(r"@([\w.]+)\((.*)\)$", head).groups()
            blocks, lines = {}, []
            body = re.sub(r"(switch [^\n]*\[)([^]]*)\]",
                          lambda found: found[0].replace("\n", " "), body)
            for line in body.splitlines():
                if label := re.match(r"([-\w.$]+):", line):
                    blocks[label[1]] = lines = []
                elif line.strip():
                    lines.append(line.strip())
            self.functions[name] = Function(
                name, [word.split()[-1] for word in _split_list(arguments)], blocks)

    # Types

    def size(self, kind: str) -> int:
        return self._measure(kind)[0]

    def _measure(self, kind: str) -> tuple[int, int]:
        """(size, alignment) in bytes."""
        if kind.endswith("*"):
            return 8, 8
        if number := re.fullmatch(r"i(\d+)", kind):
            size = (int(number[1]) + 7) // 8
            return size, size
        if array := re.fullmatch(r"\[(\d+) x (.*)\]", kind):
            size, alignment = self._measure(array[2])
            return int(array[1]) * size, alignment
        if kind in self.types:
            at, most = 0, 1
            for part in self.types[kind]:
                size, alignment = self._measure(part)
                at = -(-at // alignment) * alignment + size
                most = max(most, alignment)
            return -(-at // most) * most, most
        raise Unknown(f"type {kind}")

    def offset(self, kind: str, number: int) -> tuple[int, str]:
        """(offset, type) of a member."""
        at = 0
        for i, part in enumerate(self.types[kind]):
            size, alignment = self._measure(part)
            at = -(-at // alignment) * alignment
            if i == number:
                return at, part
            at += size
        raise Unknown(f"{kind} has no member {number}")

    def _table(self, kind: str) -> Table | None:
        """An array of 2^n structures of 64-bit words, which may be indexed by a symbol."""
        array = re.fullmatch(r"\[(\d+) x (%.*)\]", kind)
        if not array or int(array[1]).bit_count() != 1:
            return None
        words = self.types[array[2]]
        return Table(int(array[1]), len(words)) if set(words) == {"i64"} else None

    # Running

    def run(self, name: str, arguments: list, memory: Memory) -> tuple[object, Memory]:
        """What a function returns (None for void) and the memory after it."""
        function = self.functions[name]
        self._calls += 1
        call = self._calls
        order = {label: i for i, label in enumerate(_order(function.blocks))}
        start = _Way(z3.BoolVal(True), dict(zip(function.arguments, arguments, strict=True)),
                     memory.copy())
        waiting: dict[str, list[tuple[str | None, _Way]]] = {next(iter(order)): [(None, start)]}
        ends: list[tuple[object, _Way]] = []
        visits: dict[str, int] = {}
        for _ in range(MOST_BLOCKS):
            if not waiting:
                break
            label = min(waiting, key=order.__getitem__)
            way = self._enter(function.blocks[label], waiting.pop(label))
            visits[label] = visits.get(label, 0) + 1
            if visits[label] > FEW_ROUNDS and _impossible(way.condition):
                continue
            for to, condition, result in self._block(function.blocks[label], way, call):
                reached = z3.simplify(z3.And(way.condition, condition))
                if z3.is_false(reached):
                    continue
                after = _Way(reached, dict(way.values), way.memory.copy())
                if to is None:
                    ends.append((result, after))
                else:
                    waiting.setdefault(to, []).append((label, after))
        else:
            raise Unknown(f"{name} does not end")
        result, last = ends[0]
        memory = last.memory
        for value, way in ends[1:]:
            result = _either(way.condition, value, result)
            memory = _merge(way.condition, way.memory, memory)
        return result, memory

    def _enter(self, lines: list[str], ways: list[tuple[str | None, _Way]]) -> _Way:
        """The ways into a block as one, its phi instructions done."""
        entered = []
        for source, way in ways:
            new = {}
            for line in lines:
                phi = re.match(rf"({_NAME}) = phi (\S+) (.*)", line)
                if not phi:
                    break
                for value, label in re.findall(r"\[ ([^,]+), %([^ ]+) \]", phi[3]):
                    if label == source:
                        new[phi[1]] = self._value(phi[2], value, way)
            entered.append(_Way(way.condition, {**way.values, **new}, way.memory))
        merged = entered[0]
        for way in entered[1:]:
            names = merged.values.keys() & way.values.keys()
            values = {}
            for name in names:
                try:
                    values[name] = _either(way.condition, way.values[name], merged.values[name])
                except Unknown:
                    continue  # an address of one way only; what uses it fails
            merged = _Way(z3.simplify(z3.Or(merged.condition, way.condition)), values,
                          _merge(way.condition, way.memory, merged.memory))
        return merged

    def _block(self, lines: list[str], way: _Way, call: int):
        """Run a block; (next label or None, condition, returned value) for each way out."""
        for line in lines:
            line = re.sub(r"(, ![\w.]+ ![\w]+)+$", "", line)
            if " = phi " in line:
                continue
            if made := re.match(rf"({_NAME}) = (.*)", line):
                way.values[made[1]] = self._instruction(made[2], way, f"{call}.{made[1]}")
            elif store := re.match(rf"store (\S+) (\S+), (.*\*) ({_NAME}|null), align", line):
                value = self._value(store[1], store[2], way)
                if isinstance(value, Pointer):
                    raise Unknown(line)
                way.memory.store(self._value(store[3], store[4], way), value)
            elif line.startswith(("call", "tail call")):
                self._instruction(line, way, str(call))
            elif jump := re.match(r"br label %(\S+)", line):
                return [(jump[1].rstrip(","), z3.BoolVal(True), None)]
            elif fork := re.match(r"br i1 (\S+), label %(\S+), label %([^\s,]+)", line):
                taken = z3.simplify(self._value("i1", fork[1], way) == 1)
                return [(fork[2], taken, None), (fork[3], z3.simplify(z3.Not(taken)), None)]
            elif switch := re.match(r"switch (\S+) (\S+), label %(\S+) \[(.*)\]", line):
                value, rest, ways = self._value(switch[1], switch[2], way), [], []
                for case, label in re.findall(r"\S+ (-?\d+), label %([^\s,]+)", switch[4]):
                    taken = z3.simplify(value == int(case))
                    ways.append((label, taken, None))
                    rest.append(z3.Not(taken))
                return [*ways, (switch[3], z3.simplify(z3.And(*rest)), None)]
            elif back := re.match(r"ret (\S+)(?: (.*))?", line):
                value = None if back[1] == "void" else self._value(back[1], back[2], way)
                return [(None, z3.BoolVal(True), value)]
            elif not line.startswith("unreachable"):
                raise Unknown(line)
        return []

    def _value(self, kind: str, word: str, way: _Way):
        if word in way.values:
            return way.values[word]
        if word == "null":
            return Pointer(None)
        bits = re.fullmatch(r"i(\d+)", kind)
        if bits and word in ("true", "false"):
            return z3.BitVecVal(int(word == "true"), 1)
        if bits and re.fullmatch(r"-?\d+", word):
            return z3.BitVecVal(int(word), int(bits[1]))
        raise Unknown(f"{kind} {word}")

    def _instruction(self, text: str, way: _Way, name: str):
        word = text.split()[0]
        if word in _BINARY:
            kind, one, other = re.match(
                rf"{word} (?:nuw |nsw |exact )*(\S+) (\S+), (\S+)", text).groups()
            return _BINARY[word](self._value(kind, one, way), self._value(kind, other, way))
        if word in ("zext", "sext", "trunc"):
            kind, value, to = re.match(rf"{word} (\S+) (\S+) to i(\d+)", text).groups()
            value = self._value(kind, value, way)
            more = int(to) - value.size()
            if word == "trunc":
                return z3.Extract(int(to) - 1, 0, value)
            return z3.ZeroExt(more, value) if word == "zext" else z3.SignExt(more, value)
        if word == "icmp":
            test, kind, one, other = re.match(
                r"icmp (\w+) (\S+) (\S+), (\S+)", text).groups()
            one, other = self._value(kind, one, way), self._value(kind, other, way)
            if isinstance(one, Pointer):
                same = z3.BoolVal(one == other)
                holds = same if test == "eq" else z3.Not(same)
            else:
                holds = _COMPARE[test](one, other)
            return z3.simplify(z3.If(holds, z3.BitVecVal(1, 1), z3.BitVecVal(0, 1)))
        if word == "select":
            test, kind, one, other = re.match(
                r"select i1 (\S+), (\S+) (\S+), \S+ (\S+)", text).groups()
            return _either(self._value("i1", test, way) == 1, self._value(kind, one, way),
                           self._value(kind, other, way))
        if word == "freeze":
            kind, value = re.match(r"freeze (\S+) (\S+)", text).groups()
            return self._value(kind, value, way)
        if word == "alloca":
            kind = re.match(r"alloca (.*), align", text)[1]
            place = f"alloca {name}"
            way.memory.add(place, self.size(kind), self._table(kind))
            return Pointer(place)
        if word == "bitcast":
            kind, value = re.match(rf"bitcast (.*\*) ({_NAME}) to ", text).groups()
            return self._value(kind, value, way)
        if word == "load":
            kind, where, at = re.match(
                rf"load (\S+), (.*\*) ({_NAME}), align", text).groups()
            return way.memory.load(self._value(where, at, way), self.size(kind))
        if word == "getelementptr":
            kind, *words = _split_list(text.split(" ", 1)[1].removeprefix("inbounds "))
            return self._address(kind, words, way)
        if word in ("call", "tail"):
            return self._call(text, way)
        raise Unknown(text)

    def _address(self, kind: str, words: list[str], way: _Way) -> Pointer:
        pointer = self._value("*", words[0].split()[-1], way)
        for i, word in enumerate(words[1:]):
            number = z3.simplify(self._value(*word.split(), way))
            if i and kind in self.types:
                offset, kind = self.offset(kind, number.as_long())
                pointer = replace(pointer, offset=pointer.offset + offset)
                continue
            if i:
                kind = re.fullmatch(r"\[\d+ x (.*)\]", kind)[1]
            stride = self.size(kind)
            if isinstance(number, z3.BitVecNumRef):
                pointer = replace(
                    pointer, offset=pointer.offset + stride * number.as_signed_long())
            elif pointer.number is None:
                pointer = replace(pointer, number=number, stride=stride)
            else:
                raise Unknown("two symbolic element numbers")
        return pointer

    def _call(self, text: str, way: _Way):
        name, arguments = re.search(r"@([\w.]+)\((.*)\)", text).groups()
        values = []
        for argument in _split_list(arguments):
            kind, *_, word = argument.split()
            kind = "*" if "*" in argument else kind
            values.append(argument if kind == "metadata" else self._value(kind, word, way))
        if name.startswith(("llvm.lifetime", "llvm.dbg", "llvm.assume", "llvm.experimental")):
            return None
        if name.startswith(("llvm.memset", "llvm.memcpy", "llvm.memmove")):
            size = z3.simplify(values[2]).as_long()
            if name.startswith("llvm.memset"):
                way.memory.fill(values[0], z3.simplify(values[1]).as_long(), size)
            else:
                way.memory.move(values[0], values[1], size)
            return None
        if special := re.match(r"llvm\.(umin|umax|smin|smax)\.", name):
            one, other = values
            below = z3.ULT(one, other) if special[1][0] == "u" else one < other
            return z3.If(below, *(values if special[1].endswith("min") else values[::-1]))
        if name.startswith("llvm.fsh"):
            one, other, by = values
            by = z3.URem(by, z3.BitVecVal(by.size(), by.size()))
            whole = z3.Concat(one, other)
            by = z3.ZeroExt(by.size(), by)
            if name.startswith("llvm.fshl"):
                return z3.Extract(2 * one.size() - 1, one.size(), whole << by)
            return z3.Extract(one.size() - 1, 0, z3.LShR(whole, by))
        if name.startswith("llvm.ctpop"):
            return sum((bits_of(values[0], i) for i in range(values[0].size())),
                       z3.BitVecVal(0, values[0].size()))
        if name not in self.functions:
            raise Unknown(text)
        result, way.memory = self.run(name, values, way.memory)
        return result


def _impossible(condition: z3.BoolRef) -> bool:
    solver = z3.Solver()
    solver.add(condition)
    return solver.check() == z3.unsat


def bits_of(value: z3.BitVecRef, number: int) -> z3.BitVecRef:
    """One bit of a value, in the value's width."""
    return z3.ZeroExt(value.size() - 1, z3.Extract(number, number, value))


_BINARY = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b, "lshr": z3.LShR, "ashr": lambda a, b: a >> b,
    "udiv": z3.UDiv, "urem": z3.URem,
}
_COMPARE = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
    "ult": z3.ULT, "ule": z3.ULE, "ugt": z3.UGT, "uge": z3.UGE,
    "slt": lambda a, b: a < b, "sle": lambda a, b: a <= b,
    "sgt": lambda a, b: a > b, "sge": lambda a, b: a >= b,
}


def _split_list(text: str) -> list[str]:
    """The parts between the commas that no bracket encloses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _order(blocks: dict[str, list[str]]) -> list[str]:
    """Labels in reverse postorder: a block comes after all that lead to it, loops aside."""
    seen: set[str] = set()
    done: list[str] = []

    def visit(label: str) -> None:
        seen.add(label)
        targets = re.findall(r"label %([^\s,\]]+)", blocks[label][-1])
        for target in reversed(targets):
            if target not in seen:
                visit(target)
        done.append(label)

    visit(next(iter(blocks)))
    return done[::-1]
