"""What a ``with`` does at its end, for the readers and writers of files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

__all__ = ["Closing", "Discarding"]


class Closing(ABC):
    """A ``with`` closes it, after an exception too."""

    @abstractmethod
    def close(self) -> None:
        """Close the file; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, where: object) -> None:
        self.close()


class Discarding(ABC):
    """A ``with`` closes it, or discards what was written after an exception."""

    @abstractmethod
    def close(self) -> None:
        """Complete the output; after that it has its name."""

    @abstractmethod
    def discard(self) -> None:
        """Remove what was written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, where: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
