"""ChampSim, CBP-2025 and perf script --itrace=b, by files made to their layouts."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE
from lbrcore import BranchClass as C
from pylbr import trace
from pylbr.cli import main
from pylbr.errors import TraceError
from pylbr.trace import cbp, champsim


def rows(path, *names, **options):
    with trace.open(path, **options) as source:
        branches = np.concatenate(
            [np.empty(0, BRANCH_DTYPE), *(chunk.branches for chunk in source.chunks())]
        )
    return list(zip(*(branches[name].tolist() for name in names), strict=True))


ALL = ("from", "to", "class", "instructions")

# ChampSim ------------------------------------------------------------------------------------

SP, FLAGS, IP, RAX = 6, 25, 26, 1
CHAMPSIM_PROGRAM = [  # ip, is_branch, taken, written, read
    (0x100, 0, 0, (RAX,), (RAX,)),
    (0x104, 1, 0, (IP,), (IP, FLAGS)),            # jcc, not taken
    (0x106, 1, 1, (IP,), (IP, FLAGS)),            # jcc
    (0x110, 0, 0, (), (RAX,)),
    (0x114, 1, 1, (IP, SP), (IP, SP)),            # call rel
    (0x200, 1, 1, (IP, SP), (IP, SP, RAX)),       # call reg
    (0x300, 1, 1, (IP, SP), (SP,)),               # ret
    (0x202, 1, 1, (IP,), (RAX,)),                 # jmp reg
    (0x400, 1, 1, (IP,), (IP,)),                  # jmp rel: reads IP only
    (0x500, 1, 1, (IP,), ()),                     # jmp rel
    (0x600, 1, 1, (IP,), (IP, RAX)),              # jrcxz
    (0x602, 1, 1, (IP,), (SP, FLAGS)),            # none of the rules: far
    (0x700, 0, 0, (), ()),
]
CHAMPSIM_BRANCHES = [
    (0x104, 0x106, C.NOT_TAKEN, 2), (0x106, 0x110, C.COND, 1), (0x114, 0x200, C.NEAR_REL_CALL, 2),
    (0x200, 0x300, C.NEAR_IND_CALL, 1), (0x300, 0x202, C.NEAR_RET, 1),
    (0x202, 0x400, C.NEAR_IND_JMP, 1), (0x400, 0x500, C.NEAR_REL_JMP, 1),
    (0x500, 0x600, C.NEAR_REL_JMP, 1), (0x600, 0x602, C.COND, 1), (0x602, 0x700, C.FAR_BRANCH, 1),
]


def champsim_bytes(program):
    records = np.zeros(len(program), champsim.RECORD)
    for record, (ip, branch, taken, written, read) in zip(records, program, strict=True):
        record["ip"], record["is_branch"], record["taken"] = ip, branch, taken
        record["written"][:len(written)], record["read"][:len(read)] = written, read
    return records.tobytes()


@pytest.mark.parametrize(
    "pack", [bytes, lzma.compress, gzip.compress], ids=["plain", "xz", "gzip"])
@pytest.mark.parametrize("block", [1, 2, 5, 1000])
def test_champsim(tmp_path, monkeypatch, pack, block):
    monkeypatch.setattr(champsim, "_BLOCK", block)
    path = tmp_path / "t.champsimtrace"
    path.write_bytes(pack(champsim_bytes(CHAMPSIM_PROGRAM)))
    assert rows(path, *ALL) == CHAMPSIM_BRANCHES


@pytest.mark.parametrize(("written", "read"), [
    ((IP,), (SP, RAX)), ((IP,), (SP, FLAGS)), ((IP, SP), (SP, FLAGS, IP)), ((IP,), (RAX, FLAGS)),
    ((IP, SP), (IP, FLAGS)),
])
@pytest.mark.parametrize(("taken", "kind"), [(0, C.NOT_TAKEN), (1, C.FAR_BRANCH)])
def test_champsim_other_branches_are_taken_as_marked(tmp_path, written, read, taken, kind):
    """BRANCH_OTHER of ChampSim's instruction.h: it alone, beside conditional ones, may fall."""
    path = tmp_path / "t"
    path.write_bytes(champsim_bytes([
        (0x100, 0, 0, (), ()), (0x104, 1, taken, written, read), (0x106, 0, 0, (), ()),
        (0x108, 0, 0, (), ())]))
    assert rows(path, "from", "to", "class", format="champsim") == [(0x104, 0x106, kind)]


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
def test_a_tar_archive_is_named(tmp_path, mode):
    path, data = tmp_path / "t.tar", champsim_bytes(CHAMPSIM_PROGRAM * 50)
    with tarfile.open(path, mode) as archive:
        member = tarfile.TarInfo("ls.champsim")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    with pytest.raises(TraceError, match="is a tar archive; take the file"):
        trace.open(path)


def test_champsim_cut_off_and_damaged(tmp_path):
    path = tmp_path / "t"
    data = champsim_bytes(CHAMPSIM_PROGRAM)
    path.write_bytes(data[:-1])
    with pytest.raises(TraceError, match="cut off in the middle of an instruction") as caught:
        rows(path, *ALL)
    assert caught.value.offset == 64 * 12
    for record in range(13):
        damaged = bytearray(data)
        damaged[64 * record + 8] = 2
        path.write_bytes(bytes(damaged))
        with pytest.raises(TraceError) as caught:
            rows(path, *ALL, format="champsim")
        assert caught.value.offset == 64 * record
    compressed = lzma.compress(data)
    for end in range(1, len(compressed)):
        path.write_bytes(compressed[:end])
        with pytest.raises(TraceError):
            rows(path, *ALL)


# CBP-2025 ------------------------------------------------------------------------------------


def instruction(pc, kind, taken=None, target=None, read=(), written=()):
    data = struct.pack("<QB", pc, kind)
    if kind in (1, 2):
        data += struct.pack("<QBB", 0x7000, 8, 0) + (b"\0" if kind == 2 else b"")
    if taken is not None:
        data += bytes([taken]) + (struct.pack("<Q", target) if taken else b"")
    data += bytes([len(read), *read, len(written), *written])
    return data + b"".join(bytes(16 if 32 <= reg < 64 else 8) for reg in written)


CBP_BYTES = b"".join([
    instruction(0x1000, 0, written=(1,)),
    instruction(0x1004, 1, read=(1, 2), written=(33, 64)),
    instruction(0x1008, 2, read=(1, 40)),
    instruction(0x100C, 3, 0, read=(64,)),
    instruction(0x1010, 3, 1, 0x1020),
    instruction(0x1020, 9, 1, 0x1024, written=(30,)),
    instruction(0x1024, 9, 1, 0x2000, written=(30,)),
    instruction(0x2000, 10, 1, 0x3000, written=(30,)),
    instruction(0x3000, 6, written=(32, 63)),
    instruction(0x3004, 11, 1, 0x2004),
    instruction(0x2004, 5, 1, 0x4000),
    instruction(0x4000, 4, 1, 0x5000),
    instruction(0x5000, 7),
])
CBP_BRANCHES = [
    (0x100C, 0x1010, C.NOT_TAKEN, 4), (0x1010, 0x1020, C.COND, 1), (0x1020, 0x1024, C.ZERO_CALL, 1),
    (0x1024, 0x2000, C.NEAR_REL_CALL, 1), (0x2000, 0x3000, C.NEAR_IND_CALL, 1),
    (0x3004, 0x2004, C.NEAR_RET, 2), (0x2004, 0x4000, C.NEAR_IND_JMP, 1),
    (0x4000, 0x5000, C.NEAR_REL_JMP, 1),
]


@pytest.mark.parametrize("read", [1, 7, 64, 1 << 18])
def test_cbp(tmp_path, monkeypatch, read):
    monkeypatch.setattr(cbp, "_READ", read)
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(CBP_BYTES))
    assert rows(path, *ALL) == CBP_BRANCHES


def test_cbp_long(tmp_path):
    """Blocks that end within instructions."""
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(CBP_BYTES[:-11] + b"".join(
        instruction(0x5000 + 4 * i, 3, 0) for i in range(60_000))))
    found = rows(path, *ALL)
    assert len(found) == 8 + 60_000
    assert [row[0] for row in found[8:]] == [0x5000 + 4 * i for i in range(60_000)]


def test_cbp_every_truncation_and_damage(tmp_path):
    path = tmp_path / "t"
    boundaries = set()
    for end in range(len(CBP_BYTES)):
        path.write_bytes(CBP_BYTES[:end] or b"\0")
        try:
            found = rows(path, *ALL, format="cbp2025")
        except TraceError as error:
            assert error.offset is not None and error.offset <= end
            continue
        boundaries.add(end)
        assert found == CBP_BRANCHES[:len(found)]
    assert len(boundaries) == 12  # the file has no count: it may end behind any instruction
    damaged = bytearray(CBP_BYTES)
    damaged[8] = 12
    path.write_bytes(bytes(damaged))
    with pytest.raises(TraceError, match="an instruction of class 12") as caught:
        rows(path, *ALL, format="cbp2025")
    assert caught.value.offset == 8


# perf script --itrace=b ----------------------------------------------------------------------

ITRACE = """\
 prog  7/8 [001] 1.000000001: PERF_RECORD_MMAP2 7/8: [0x400000(0x1000) @ 0x1000 08:01 5 6]: r-xp {p}
 prog 8 [001] 1.000000002: PERF_RECORD_COMM exec: prog:7/8
 prog  8 [001] 1.000000100: 1 branches:uH:   tr strt                  0 [unknown] => 400000 a (x)
 prog  8 [001] 1.000000101: 1 branches:uH:   call             400000 main+0x0 (x) => 400010 f (x)
 prog  8 [001] 1.000000102: 1 branches:uH:   return           400010 f+0x0 (x) => 400005 m (x)
 prog  8 [001] 1.000000103: 1 branches:uH:   jcc  400005 main (x) => 400000 m (x) IPC: 0.50 (4/8)
 prog  8 [001] 1.000000104: 1 branches:uH:   syscall  400020 m (x) => ffffffff81000000 entry (k)
 prog  8 [001] 1.000000105: 1 branches:uH:   tr end  hw int  400020 m (x) => 0 [unknown]
"""
# call +0xb; jne -7; then ret at 0x10.
CODE = bytes.fromhex("e80b00000075f9") + bytes(9) + b"\xc3" + bytes(15) + b"\x0f\x05"


def test_itrace(tmp_path):
    program = tmp_path / "prog"
    program.write_bytes(bytes(0x1000) + CODE)
    path = tmp_path / "t.txt"
    path.write_text(ITRACE.format(p=program))
    found = rows(path, "from", "to", "class", "cycles", "instructions", "cpl_from", "cpl_to")
    assert found == [
        (0x400000, 0x400010, C.NEAR_REL_CALL, 0, 0, 3, 3),
        (0x400010, 0x400005, C.NEAR_RET, 0, 0, 3, 3),
        (0x400005, 0x400000, C.COND, 8, 4, 3, 3),
        (0x400020, 0xffffffff81000000, C.SYSCALL, 0, 0, 3, 0),
    ]
    with trace.open(path) as source:
        assert source.metadata.modules == (
            trace.Module(str(program), 0x400000, 0x1000, 0x1000, "", 7),)
        assert source.metadata.tasks == (trace.Task(8, 7, "prog"),)
        chunk = next(source.chunks())
        assert set(chunk.task.tolist()) == {8} and set(chunk.cpu.tolist()) == {1}
    # Without flags every class comes out of the file.
    path.write_text("".join(
        line.replace("  call ", "").replace("  return ", "").replace("  jcc ", "")
        .replace("  syscall ", "") + "\n"
        for line in ITRACE.format(p=program).splitlines() if " tr " not in line
    ))
    assert [row[0] for row in rows(path, "class")] == [
        C.NEAR_REL_CALL, C.NEAR_RET, C.COND, C.SYSCALL]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("=> 400010", "-> 400010", "line 4: is no branch"),
        ("  call ", "  leap ", "line 4: flags 'leap' are unknown"),
        ("1.000000102", "1.000000001", "line 5: time runs backwards on CPU 1"),
        ("PERF_RECORD_MMAP2 7/8", "PERF_RECORD_MMAP2 x", "line 1: is no event"),
        ("[0x400000(0x1000)", "[0x700000(0x1000)", "0x400000 no module is mapped"),
        ("{p}", "/no/such/file", "/no/such/file, which cannot be read; put the file back"),
    ],
)
def test_itrace_mistakes(tmp_path, old, new, message):
    program = tmp_path / "prog"
    program.write_bytes(bytes(0x1000) + CODE)
    path = tmp_path / "t.txt"
    path.write_text(ITRACE.replace(old, new).format(p=program))
    with pytest.raises(TraceError, match=message):
        rows(path, "from", format="itrace")


KINDS = """\
    1/1         5.000000001:          1   branches:ku:   call                             401140 \
main+0x1a (/opt/app) =>           401000 f+0x0 (/opt/app)
    1/1         5.000000002:          1   branches:ku:   vmexit                           401170 \
main+0x4a (/opt/app) => ffffffff81e02000 vmx_vmexit+0x0 ([kernel.kallsyms])
    1/1         5.000000003:          1   branches:ku:   vmentry                ffffffff81e02010 \
vmx_vcpu_run+0x10 ([kernel.kallsyms]) =>           401170 main+0x4a (/opt/app)
 instruction trace error type 1 time 5.000000004 cpu 3 pid 1 tid 1 ip 0xffffffffab15abd1 code 6: \
Trace doesn't match instruction
    1/1         5.000000005:          1          cbr:                          cbr: 37 freq: 3700 \
MHz (132%)                   0           40139f [unknown] (/opt/app)
    1/1         5.000000005:          1          psb:          psb offs: 0x10  0 40139f [unknown]
    1/1         5.000000006:          1   branches:u:   jcc/miss/                        401145 \
main+0x1a (/opt/app) =>           401150 main+0x2a (/opt/app)
    1/1         5.000000007:          1   branches:u:   jcc/miss,not_taken/              401145 \
main+0x1a (/opt/app) =>           401147 main+0x2a (/opt/app)
    1/1         5.000000008:          1   branches:u:   jcc/not_taken/                   401145 \
main+0x1a (/opt/app) =>           401147 main+0x2a (/opt/app)
    1/1         5.000000009:          1   branches:u:   jmp/miss/                        401147 \
main+0x1a (/opt/app) =>           401150 main+0x2a (/opt/app)
    1/1         5.000000010:          1   branches:u:   br miss                          401147 \
main+0x1a (/opt/app) =>           401150 main+0x2a (/opt/app)
    1/1         5.000000011:          1   branches:u:   jcc                (x)           401145 \
main+0x1a (/opt/app) =>           401150 main+0x2a (/opt/app)
"""


def test_every_kind_of_line_is_mapped_or_counted(tmp_path, capsys):
    """Those of Intel PT that are no branches are passed over, and how many is printed."""
    program, path, out = tmp_path / "prog", tmp_path / "t.txt", tmp_path / "t.csv"
    program.write_bytes(bytes(0x140) + bytes.fromhex("e8bbfeffff") + b"\x75\x09\xeb\x07")
    maps = f"PERF_RECORD_MMAP2 1/1: [0x401000(0x1000) @ 0 08:01 5 6]: r-xp {program}\n"
    path.write_text(maps + KINDS)
    miss, in_tx = 4, 2
    assert rows(path, "from", "to", "class", "flags") == [
        (0x401140, 0x401000, C.NEAR_REL_CALL, 0), (0x401145, 0x401150, C.COND, miss),
        (0x401145, 0x401147, C.NOT_TAKEN, miss), (0x401145, 0x401147, C.NOT_TAKEN, 0),
        (0x401147, 0x401150, C.NEAR_REL_JMP, miss), (0x401147, 0x401150, C.NEAR_REL_JMP, miss),
        (0x401145, 0x401150, C.COND, in_tx),
    ]
    assert main(["convert", str(path), "-o", str(out)]) == 0
    assert "passed over: 1 cbr, 1 instruction trace error, 1 psb, 1 vmentry, 1 vmexit" in \
        capsys.readouterr().err
    for line in ("jcc/slow/", "leap", "vmentry/miss/", "call/not_taken/"):
        path.write_text(maps + KINDS.replace("jmp/miss/", line))
        with pytest.raises(TraceError, match="are unknown"):
            rows(path, "from")


@pytest.mark.parametrize(("old", "new"), [
    ("{p}", "/bin/a\0b"), ("(0x1000)", "(0x1ffffffffffffffff)"), ("7/8:", "99999999999/8:"),
    ("5 6]", "5 99999999999999999999]"), ("prog:7/8", "pr\0og:7/8"),
])
def test_events_that_no_kernel_writes_are_refused(tmp_path, capsys, old, new):
    path = tmp_path / "t.txt"
    path.write_text(ITRACE.replace(old, new).format(p="/bin/a"))
    assert main(["convert", "--from", "itrace", str(path), "-o", str(tmp_path / "t.csv")]) == 2
    assert "is no event as perf prints it" in capsys.readouterr().err
