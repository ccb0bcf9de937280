"""The one error of lbrcore."""

__all__ = ["Fault"]


class Fault(ValueError):
    """An access that the processor answers with #GP(0); the state is as it was."""
