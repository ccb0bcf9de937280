"""The recorded trace that ships with the examples: what ./demo takes where QEMU is missing."""

from pylbr import trace
from pylbr.cli import main
from tests.conftest import ROOT

TRACE = ROOT / "examples" / "gzip.parquet"


def test_it_is_whole_and_replays(tmp_path, capsys):
    with trace.open(TRACE) as source:
        branches = sum(len(chunk.branches) for chunk in source.chunks())
        assert branches == source.count > 400_000
        assert any(module.path.endswith("gzip") for module in source.metadata.modules)
    target = tmp_path / "out.perf.data"
    assert main(["replay", str(TRACE), "--cpu", "sapphire-rapids", "-c", "1009",
                 "-o", str(target)]) == 0
    assert main(["report", str(target), "-n", "3"]) == 0
    assert "gzip+0x" in capsys.readouterr().out
