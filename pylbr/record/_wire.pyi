import numpy as np

BLOCK_DTYPE: np.dtype[np.void]
HEADER_DTYPE: np.dtype[np.void]
SLOT_BYTES: int
MAGIC: int
VERSION: int
PAYLOAD: int
PAYLOAD_BITS: int
EVENT: int
NO_BRANCH: int
ASYNCHRONOUS: int
SYNCHRONOUS: int
SIGRETURN: int
SAMPLED: int
FULL: int
BRANCHES: int
INSTRUCTIONS: int
CYCLES: int
TAKEN: int
TIME: int
PAD: int
SAMPLE: int
MMAP: int
COMM: int
NATIVE: int
KILLED: int
NAME: int
