"""Builds the guests of `pylbr.selftest`, once a test run."""

from pylbr.selftest.guest_images import build

__all__ = ["build"]
