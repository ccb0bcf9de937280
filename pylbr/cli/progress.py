"""A progress bar with rate and time left; silent when standard error is no terminal."""

from __future__ import annotations

from tqdm import tqdm

__all__ = ["progress"]


def progress(total: int | None, unit: str, description: str = "") -> tqdm:
    """Bar that appears after one second; ``bar.update(n)`` moves it, ``with`` closes it."""
    return tqdm(
        total=total, unit=unit, unit_scale=True, desc=description, delay=1.0, disable=None,
        file=None, leave=False, dynamic_ncols=True,
    )
