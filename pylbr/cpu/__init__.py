"""The logical processor over lbrcore."""

from pylbr.cpu.core import Core, CoreState
from pylbr.cpu.errors import InvalidOpcode, VmEntryFailure, VmExit
from pylbr.cpu.events import NO_EVENTS, Events
from pylbr.cpu.processor import Processor
from pylbr.cpu.saved.codec import decode, encode
from pylbr.cpu.saved.core_codec import decode_core, encode_core
from pylbr.cpu.saved.migrate import migrate
from pylbr.cpu.saved.state import LbrSnapshot, PmuSnapshot, ProcessorState
from pylbr.cpu.vmcs import Vmcs

__all__ = [
    "Core", "CoreState", "Events", "InvalidOpcode", "LbrSnapshot", "NO_EVENTS", "PmuSnapshot",
    "Processor", "ProcessorState", "VmEntryFailure", "VmExit", "Vmcs", "decode", "decode_core",
    "encode", "encode_core", "migrate",
]
