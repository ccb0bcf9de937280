"""The state of a core as bytes: its threads' images one after the other."""

from __future__ import annotations

from pylbr.arch.features import CpuModel
from pylbr.cpu.core import MAX_THREADS, Core, CoreState
from pylbr.cpu.saved.codec import HEADER, MAX_SIZE, decode, encode, headed, opened
from pylbr.cpu.saved.state import ProcessorState

__all__ = ["CORE_MAGIC", "CORE_VERSION", "decode_core", "encode_core"]

CORE_MAGIC = b"PYLBRCOR"
CORE_VERSION = 1


def encode_core(state: CoreState) -> bytes:
    """The bytes of a core's state; of models, the names alone go along."""
    return headed(CORE_MAGIC, CORE_VERSION, b"".join(map(encode, state.threads)))


def decode_core(data: bytes | bytearray | memoryview, model: CpuModel | None = None
                ) -> CoreState:
    """The core's state that `data` holds, checked as far as it would load.

    Parameters
    ----------
    data : bytes
        From `encode_core`; need not be trusted.
    model : CpuModel, optional
        The model of the threads, where it is none of ``pylbr.arch.MODELS``.

    Raises
    ------
    StateError
        Damaged, truncated, of an unknown version, or threads that make no core.
    """
    _, r = opened(data, CORE_MAGIC, (CORE_VERSION,), MAX_THREADS * MAX_SIZE + HEADER.size)
    threads: list[ProcessorState] = []
    while r.at < r.end:
        if len(threads) == MAX_THREADS:
            raise r.refuse(f"more than {MAX_THREADS} threads")
        start = r.at
        size = r.take(HEADER)[3]
        r.bytes(size)
        threads.append(decode(r.data[start:r.at], model))
    state = CoreState(tuple(threads))
    Core.from_state(state)
    return state
