"""The one error tree of pylbr."""

from __future__ import annotations

__all__ = [
    "CommandError",
    "ConfigurationError",
    "GeneralProtection",
    "LbrError",
    "StateError",
    "TraceError",
    "UnsupportedFeature",
]


class LbrError(Exception):
    """Base of every error that pylbr raises on purpose."""


class GeneralProtection(LbrError):
    """The guest's #GP(0): a value of the model, not a failure of it.

    Attributes
    ----------
    register : str
        Name of the register as the manual spells it, or ``"MSR 0x..."``.
    index : int
        MSR index.
    value : int or None
        Value of the refused write; None for a read.
    bits : int
        The offending bits of `value`; 0 when the access itself is refused.
    rule : str
        What the manual demands.
    instruction : str
        If it is neither RDMSR nor WRMSR.
    """

    def __init__(
        self, register: str, index: int, value: int | None = None, bits: int = 0, rule: str = "",
        instruction: str = "",
    ) -> None:
        self.register, self.index, self.value, self.bits, self.rule = (
            register, index, value, bits, rule,
        )
        self.instruction = instruction
        # The text is made only when it is asked for: a guest's #GP is a result like any other.
        super().__init__(register, index, value, bits, rule, instruction)

    def __str__(self) -> str:
        what = self.instruction or ("RDMSR" if self.value is None else "WRMSR")
        if self.value is not None:
            what += f" of {self.value:#x}"
        detail = f", bits {self.bits:#x}" if self.bits else ""
        return f"#GP: {what}, {self.register} ({self.index:#x}){detail}: {self.rule}"


class ConfigurationError(LbrError, ValueError):
    """A processor, VM or event that cannot exist, with the reason as a sentence."""


class UnsupportedFeature(LbrError):
    """The processor at hand does not offer what was asked for."""


class StateError(LbrError, ValueError):
    """A saved state that is damaged, of an unknown version or for another processor."""


class TraceError(LbrError, ValueError):
    """A trace or profile file that cannot be read or written.

    Attributes
    ----------
    path : str
        The file.
    offset : int or None
        Byte offset (or line, in text formats, as `what` then states) of the trouble.
    what : str
        The trouble, and what to do.
    """

    def __init__(self, path: object, what: str, offset: int | None = None) -> None:
        self.path, self.what, self.offset = str(path), what, offset
        where = self.path if offset is None else f"{self.path}, offset {offset:#x}"
        super().__init__(f"{where}: {what}")

    def __reduce__(self) -> tuple[type[TraceError], tuple[str, str, int | None]]:
        # Workers of other processes raise it, too.
        return type(self), (self.path, self.what, self.offset)


class CommandError(LbrError):
    """A mistake on the command line; printed as one line, then exit with `exit_code`."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        self.exit_code = exit_code
        super().__init__(message)
