"""Branch traces and files of branch stacks: the container, and readers of others' formats.

>>> from pylbr import trace
>>> with trace.open("program.arrow") as source:  # doctest: +SKIP
...     for chunk in source.chunks():
...         print(len(chunk), (chunk.column("class") == 5).sum())
"""

from pylbr.files.format import Format, Options
from pylbr.files.module import Module
from pylbr.perf.stacks import Stacks
from pylbr.trace.formats import detect, open_any, open_stacks
from pylbr.trace.formats import open_trace as open  # noqa: A004
from pylbr.trace.lbrt_writer import LbrtWriter
from pylbr.trace.metadata import Metadata, Task
from pylbr.trace.partition import PartitionedWriter
from pylbr.trace.trace import Chunk, Part, StreamTrace, Trace
from pylbr.trace.writer import Writer

__all__ = [
    "Chunk", "Format", "LbrtWriter", "Metadata", "Module", "Options", "Part",
    "PartitionedWriter", "Stacks", "StreamTrace", "Task",
    "Trace", "Writer", "detect", "open", "open_any", "open_stacks",
]
