"""Metadata of a trace: processor model, mapped modules, tasks, origin."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from pylbr.files.json_text import decode_json
from pylbr.files.module import Module

__all__ = ["Metadata", "Task", "decode_metadata", "encode_metadata", "with_modules"]

#: Version of the container; a reader refuses any other.
VERSION: Final = 1
#: Keys of the Arrow or Parquet schema metadata.
METADATA_KEY: Final = b"pylbr"
CHECK_KEY: Final = b"pylbr.crc32"


@dataclass(frozen=True, slots=True)
class Task:
    """A thread: the `task` column holds `tid`; `pid` is its process."""

    tid: int
    pid: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Head of a trace.

    Attributes
    ----------
    model : str
        Processor model that ran the program; empty if unknown.
    modules, tasks : tuple
    provenance : dict of str to str
        How the trace was made: source file, format, command line, ...
    """

    model: str = ""
    modules: tuple[Module, ...] = ()
    tasks: tuple[Task, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)


def with_modules(metadata: Metadata, modules: Sequence[Module]) -> Metadata:
    """The same with more modules."""
    return replace(metadata, modules=(*metadata.modules, *modules)) if modules else metadata


def encode_metadata(metadata: Metadata, columns: tuple[str, ...]) -> dict[bytes, bytes]:
    """Schema metadata of a container with these columns."""
    content = {"version": VERSION, "columns": list(columns), **asdict(metadata)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return {METADATA_KEY: text, CHECK_KEY: f"{zlib.crc32(text):08x}".encode()}


def decode_metadata(
    schema_metadata: Mapping[bytes, bytes] | None,
) -> tuple[Metadata, tuple[str, ...]] | None:
    """Metadata and columns out of schema metadata; None if none of ours is there.

    Raises
    ------
    ValueError
        Damaged, or of a version that this reader does not support.
    """
    schema_metadata = schema_metadata or {}
    text = schema_metadata.get(METADATA_KEY)
    if text is None:
        if any(key.startswith(b"pylbr") for key in schema_metadata):
            raise ValueError("the schema metadata lacks its key 'pylbr'")
        return None
    check = f"{zlib.crc32(text):08x}".encode()
    if schema_metadata.get(CHECK_KEY) != check:
        raise ValueError("the schema metadata is damaged: CRC32 differs")
    content = decode_json(text)
    version = _typed(content, "version", int)
    if version != VERSION:
        raise ValueError(f"container version {version}; this reader supports version {VERSION}")
    metadata = Metadata(
        model=_typed(content, "model", str),
        modules=tuple(Module(**row) for row in _typed(content, "modules", list)),
        tasks=tuple(Task(**row) for row in _typed(content, "tasks", list)),
        provenance={str(k): str(v) for k, v in _typed(content, "provenance", dict).items()},
    )
    return metadata, tuple(_typed(content, "columns", list))


def _typed(content: Any, name: str, kind: type) -> Any:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"the schema metadata has no {kind.__name__} {name!r}")
    return value
