"""``.fdata``: every line of what perf2bolt writes of the same recording, and no other."""

import pytest
from peer_tools import BOLTS, LLVM, need, perf2bolt
from peer_workload import sample

from pylbr.cli import main
from pylbr.perf.data_writer import write_perf_data

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("version", BOLTS)
@pytest.mark.parametrize("command", ["merge", "convert"])
def test_fdata_is_what_perf2bolt_writes(workload, tmp_path, version, command):
    need(LLVM[version] / "perf2bolt")
    write_perf_data(tmp_path / "p", workload.stream(sample(workload, 7)))
    assert perf2bolt(version, tmp_path / "p", workload.binary, tmp_path / "theirs") == 0
    out = tmp_path / "ours.fdata"
    assert main([command, str(tmp_path / "p"), "-o", str(out), "--binary", str(workload.binary),
                 "--bolt", str(LLVM[version])]) == 0
    ours, theirs = (sorted(path.read_text().splitlines()) for path in (out, tmp_path / "theirs"))
    assert ours == theirs and len(ours) > 10
    mispredicted = sum(int(line.split()[6]) for line in ours)
    assert mispredicted > 0


def test_local_functions_of_one_name_stay_apart(tmp_path):
    """BOLT numbers them, as name/N or name/FILE/N, and so does what is merged."""
    from peer_tools import checked

    need(LLVM[19] / "perf2bolt")
    for unit in ("one", "two"):
        (tmp_path / f"{unit}.c").write_text(
            "__attribute__((noinline)) static int same(int n) {"
            f" int s = 0; for (int i = 0; i < n; i++) s += i ^ {len(unit) + ord(unit[0])};"
            " __asm__ volatile(\"\" : \"+r\"(s)); return s; }\n"
            f"int {unit}(int n) {{ return same(n); }}\n")
    (tmp_path / "main.c").write_text(
        "int one(int), two(int);\nint main(void) { return one(9) + two(8) == 3; }\n")
    binary = tmp_path / "app"
    checked(need("gcc"), "-O1", "-Wl,--emit-relocs", *(tmp_path / f"{n}.c" for n in (
        "main", "one", "two")), "-o", binary)
    symbols = [line.split() for line in checked(need("nm"), "--defined-only", binary).splitlines()]
    starts = [int(word[0], 16) for word in symbols if word[-1] == "same"]
    assert len(starts) == 2
    callers = {word[-1]: int(word[0], 16) for word in symbols}
    lines = [f"B {callers[name]:x} {start:x} {5 + i} {i}"
             for i, (name, start) in enumerate(zip(("one", "two"), sorted(starts), strict=True))]
    (tmp_path / "x.preagg").write_text("".join(f"{line}\n" for line in lines))
    assert perf2bolt(19, tmp_path / "x.preagg", binary, tmp_path / "theirs", "-pa") == 0
    out = tmp_path / "ours.fdata"
    assert main(["merge", str(tmp_path / "x.preagg"), "-o", str(out), "--binary", str(binary),
                 "--bolt", str(LLVM[19])]) == 0
    ours = sorted(out.read_text().splitlines())
    assert ours == sorted((tmp_path / "theirs").read_text().splitlines())
    targets = {line.split()[4] for line in ours}
    assert len(targets) == 2 and all(name.startswith("same/") for name in targets)


def test_without_bolt_one_line_says_so(workload, tmp_path, capsys):
    write_perf_data(tmp_path / "p", workload.stream(sample(workload, 7)))
    assert main(["merge", str(tmp_path / "p"), "-o", str(tmp_path / "o.fdata"), "--binary",
                 str(workload.binary), "--bolt", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "install LLVM's BOLT" in said
    assert not (tmp_path / "o.fdata").exists()
