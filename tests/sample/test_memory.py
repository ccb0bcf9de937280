"""A trace of a billion branches, made on the fly, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import numpy as np
from pylbr.sample import SampleSetup, Sampler

chunk, n = 1 << 20, 10**9
rng = np.random.default_rng(1)
columns = {
    "from": np.arange(chunk, dtype="u8") * 12 + 0x400000,
    "to": np.arange(chunk, dtype="u8") * 12 + 0x400060,
    "class": rng.choice(np.array([0, 0, 0, 6, 6, 4, 5], "u1"), chunk),
    "cycles": rng.integers(1, 40, chunk, dtype="u4"),
}
sampler = Sampler(SampleSetup.of(
    ["every-branch", "br_inst_retired.near_return"], 10_007, branches="any"))
samples = 0
for start in range(0, n, chunk):
    columns["from"] += np.uint64(12)
    samples += sum(len(batch) for batch in sampler.take(columns, start))
rows = -(-n // chunk) * chunk
assert samples > rows // 10_007, samples
# Not ru_maxrss, which starts at the parent's.
high = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(high.split()[1]) * 1024)
"""


@pytest.mark.slow
def test_a_billion_branches_fit_in_512_megabytes():
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, check=True,
                            capture_output=True, text=True, timeout=300)
    assert int(result.stdout) < 512 * 10**6
