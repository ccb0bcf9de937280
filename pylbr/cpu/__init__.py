"""The logical processor over lbrcore."""

from pylbr.cpu.errors import InvalidOpcode, VmEntryFailure, VmExit
from pylbr.cpu.processor import Processor
from pylbr.cpu.recording import NO_EVENTS, Events
from pylbr.cpu.vmcs import Vmcs

__all__ = ["Events", "InvalidOpcode", "NO_EVENTS", "Processor", "VmEntryFailure", "VmExit", "Vmcs"]
