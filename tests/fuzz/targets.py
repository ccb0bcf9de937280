"""What is fuzzed: everything that reads bytes of others."""

from __future__ import annotations

import gc
import gzip
import json
import lzma
import random
import struct
import tempfile
import zipfile
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np

from lbrcore import BRANCH_DTYPE, CTL_ALL, Fault, LbrConfig, LbrState, xsave
from pylbr import trace
from pylbr.cpu import Core, Processor, decode, decode_core, encode, encode_core
from pylbr.embed.image import Image
from pylbr.embed.machine import Machine
from pylbr.embed.savefile import pack, restore, save
from pylbr.errors import StateError
from pylbr.trace import Chunk, Metadata, Module, Trace, drmemtrace
from pylbr.verify.models import Configuration, explore
from pylbr.verify.story import Story, story_of
from tests.fuzz import mutate, wire
from tests.fuzz.harness import Target
from tests.manual import IA32_LBR_CTL
from tests.perf.perf_bytes import RECORDS, compressed, perf_file, pipe_file
from tests.trace.test_instruction_traces import (
    CBP_BYTES,
    CHAMPSIM_PROGRAM,
    ITRACE,
    champsim_bytes,
)


def branches(count: int) -> np.ndarray:
    """Branches with every field in its whole range."""
    rng = np.random.default_rng(7)
    found = np.zeros(count, BRANCH_DTYPE)
    for name, end in (("from", 1 << 48), ("to", 1 << 48), ("cycles", 1 << 16), ("class", 16),
                      ("instructions", 1 << 16), ("flags", 8), ("cpl_from", 4), ("cpl_to", 4)):
        found[name] = rng.integers(0, end, count)
    found["events"] = rng.integers(0, 4, (count, 4))
    return found


# Files ---------------------------------------------------------------------------------------

def _contents(chunk: Chunk) -> bytes:
    return chunk.branches.tobytes() + (b"" if chunk.task is None else chunk.task.tobytes())


def read_file(suffix: str, form: str | None):
    """(bytes, directory) -> the file's whole content, recognised or read as `form`."""

    def run(data: bytes, folder: Path) -> object:
        path = folder / f"t{suffix}"
        path.write_bytes(data)
        with trace.open_any(path, form) as opened:
            if isinstance(opened, Trace):
                return repr(opened.metadata), opened.columns, *map(_contents, opened.chunks())
            return repr([repr(record) for record in opened])

    return run


@cache
def container(suffix: str) -> tuple[bytes, ...]:
    """A small container."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{suffix}"
        head = Metadata("x", (Module("/p", 0x400000, 0x1000),))
        kind = trace.LbrtWriter if suffix == ".lbrt" else trace.Writer
        rows = np.tile(branches(5), 20 if suffix == ".lbrt" else 1)
        with kind(path, head, ("class", "task")) as out:
            out.write(rows, task=8)
        return (path.read_bytes(),)


CSV = (b"from,to,class,cycles,task,cpl_from\n0x401000,0x401020,COND,3,7,3\n"
       b"4198432,4198400,5,0,7,0\n",)
PERF_SCRIPT = (
    b"prog  7/8  [001] 1.000000001:  10000 branches:u:  401000 main+0x0 (/bin/prog) "
    b"0x401000/0x401020/P/-/-/3  0x401030/0x401000/M/X/A/0\n"
    b"PERF_RECORD_MMAP2 7/7: [0x400000(0x1000) @ 0x1000 08:01 5 6]: r-xp /bin/prog\n",
    b"          401000 0x401000/0x401020/P/-/-/0/COND/-\n",
    b"prog 7 1.5: 1 cycles: 0x1/0x2/P/-/-/0 0x3/0x4/-/-/-/12\n",
)


def perf_files() -> tuple[bytes, ...]:
    """File mode, pipe mode, compressed."""
    return (perf_file(RECORDS), pipe_file(RECORDS), perf_file(compressed(RECORDS, 3)))


@cache
def drmemtrace_files() -> tuple[bytes, ...]:
    """Plain, and in a zip archive of two chunks."""
    rows = [(25, 0, 4), (28, 12, 4), (28, 9, 0x240), (22, 0, 5), (28, 3, 2), (10, 4, 0x100),
            (11, 2, 0x104), (28, 0, 0x200), (10, 4, 0x900), (28, 1, 0x906), (10, 4, 0x200),
            (16, 1, 0x204), (10, 1, 0x300), (13, 2, 0x301), (10, 1, 0x303)]
    data = np.array(rows, drmemtrace.RECORD).tobytes()
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("chunk.0000", data[:60])
        out.writestr("chunk.0001", data[60:])
    return data, archive.getvalue()


def instruction_traces(data: bytes) -> tuple[bytes, ...]:
    """Plain and compressed."""
    return data, gzip.compress(data, mtime=0), lzma.compress(data)


# States --------------------------------------------------------------------------------------

def running(model: str) -> Processor:
    """A processor that has recorded something."""
    cpu = Processor(model)
    cpu.wrmsr(IA32_LBR_CTL, CTL_ALL & ~8)
    found = branches(40)
    found["class"] %= 6
    cpu.record(found)
    return cpu


def read_state(data: bytes, folder: Path) -> object:
    state = decode(data)
    cpu = Processor.from_state(state)
    cpu.record(branches(3))
    return encode(state)


def read_core(data: bytes, folder: Path) -> object:
    return encode_core(decode_core(data))


def sealed_state(data: bytes) -> bytes:
    """The same with a right length and checksum."""
    payload = data[24:]
    return data[:12] + struct.pack("<II", len(payload), zlib.crc32(payload)) + data[20:24] + payload


def hostile_state(rng: random.Random, seed: bytes) -> bytes:
    """Changed values under a right checksum: what a forger writes."""
    return sealed_state(seed[:24] + mutate.blind(rng, seed[24:]))


@cache
def saved_machine() -> tuple[bytes, ...]:
    """A machine between two blocks of a loop, in 4 MiB."""
    code = bytes.fromhex("31c0 ffc0 83f8 64 75f9 ebf5")  # xor; inc; cmp 100; jne; jmp
    machine = Machine("sapphire-rapids", memory=4 << 20)
    machine.load(Image("loop", 0x100000, False, ((0x100000, 0x1000, code),), ()))
    machine.pause_at = 50
    machine.run(1000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "machine"
        save(machine, path)
        return (path.read_bytes(),)


def read_machine(data: bytes, folder: Path) -> object:
    path = folder / "machine"
    path.write_bytes(data)
    if _ENGINES:  # each holds a gigabyte of address space until it is collected
        _ENGINES.clear()
        gc.collect()
    try:
        machine = restore(path)
    except StateError as error:
        _ENGINES.extend([] if "checksum" in str(error) else [path])
        raise
    _ENGINES.append(path)
    return machine.run(500), machine.processor.records().tobytes()


#: Machines that were made since the last collection.
_ENGINES: list[Path] = []


def hostile_machine(rng: random.Random, seed: bytes) -> bytes:
    """Changed header values under right checksums."""
    length, = struct.unpack_from("<I", seed, 8)
    header = json.loads(seed[32:32 + length])
    if rng.random() < 0.2:
        state = hostile_state(rng, bytes.fromhex(header["processor"]))
        header["processor"] = state.hex()
    else:
        header = mutate.json_value(rng, header)
    return pack(header, seed[32 + length:])


def read_xsave(data: bytes, folder: Path) -> object:
    """XRSTORS, then XSAVES, of an area whose first byte chooses the request-feature bitmap."""
    state = LbrState(LbrConfig())
    state.record(branches(5) if len(data) & 1 else branches(0))
    rfbm = 0x8000 | data[0] if data else 0x8003
    xsave.xrstors(state, data[1:], rfbm)
    area = bytearray(2048)
    xsave.xsaves(state, area, rfbm & 0x8003)
    return bytes(area)


def xsave_areas() -> tuple[bytes, ...]:
    state = LbrState(LbrConfig())
    state.ctl = CTL_ALL & ~8
    found = branches(50)
    state.record(found)
    area = bytearray(1384)
    xsave.xsaves(state, area, 0x8003, xinuse=3)
    return (b"\x03" + bytes(area), b"\0" + bytes(area))


@cache
def stories() -> tuple[bytes, ...]:
    configuration = Configuration("lease", ("no-wipe",), depth=1, guests=1)
    result = explore(configuration)
    return (story_of(configuration, "P20b", result.broken["P20b"]).to_json().encode(),)


def read_story(data: bytes, folder: Path) -> object:
    path = folder / "t.story.json"
    path.write_bytes(data)
    return Story.load(path).text()


def hostile_story(rng: random.Random, seed: bytes) -> bytes:
    return mutate.json_text(rng, seed) if rng.random() < 0.8 else mutate.blind(rng, seed)


TARGETS: dict[str, Target] = {t.name: t for t in (
    Target("arrow", lambda: container(".arrow"), read_file(".arrow", "arrow"), mutate.blind,
           checked=True),
    Target("parquet", lambda: container(".parquet"), read_file(".parquet", "parquet"),
           mutate.blind, checked=True),
    Target("lbrt", lambda: container(".lbrt"), read_file(".lbrt", "lbrt"), mutate.blind,
           checked=True),
    Target("perf.data", perf_files, read_file(".perf.data", "perf.data"), mutate.blind),
    Target("perfscript", lambda: PERF_SCRIPT, read_file(".txt", "perfscript"), mutate.text),
    Target("itrace", lambda: (ITRACE.format(p="/bin/true").encode(),),
           read_file(".txt", "itrace"), mutate.text),
    Target("csv", lambda: CSV, read_file(".csv", "csv"), mutate.text),
    Target("drmemtrace", drmemtrace_files, read_file(".zip", "drmemtrace"), mutate.blind),
    Target("champsim", lambda: instruction_traces(champsim_bytes(CHAMPSIM_PROGRAM)),
           read_file(".champsim", "champsim"), mutate.blind),
    Target("cbp2025", lambda: instruction_traces(CBP_BYTES), read_file(".cbp", "cbp2025"),
           mutate.blind),
    Target("any", lambda: (*perf_files(), *PERF_SCRIPT, *CSV, *drmemtrace_files(),
                           *container(".arrow")), read_file(".bin", None), mutate.blind),
    Target("state", lambda: (encode(running("sapphire-rapids").state()),
                             encode(Processor("skylake").state())), read_state, hostile_state,
           checked=True),
    Target("core", lambda: (encode_core(Core("skylake").state()),), read_core, hostile_state,
           checked=True),
    Target("machine", saved_machine, read_machine, hostile_machine, checked=True),
    Target("xsave", xsave_areas, read_xsave, mutate.blind,
           (Fault, ValueError)),
    Target("story", stories, read_story, hostile_story),
    Target("wire", wire.seeds, wire.run, wire.hostile),
)}


def mutant(target: Target, run: int):
    """Number -> a mutant and the number of its seed; `run` chooses another series."""

    seeds = target.seeds()

    def variant(number: int) -> tuple[bytes, int]:
        rng = random.Random(f"{target.name} {run} {number}")
        seed = rng.randrange(len(seeds))
        return target.mutate(rng, seeds[seed]), seed

    return variant


def change(target: Target, seed: int):
    """Number -> the seed with byte ``number // 255`` changed to one of the 255 others."""
    data = target.seeds()[seed]

    def variant(number: int) -> tuple[bytes, int]:
        changed = bytearray(data)
        at, by = divmod(number, 255)
        changed[at] ^= by + 1
        return bytes(changed), seed

    return variant
