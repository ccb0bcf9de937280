"""Builds the guests of `pylbr.selftest`, once a test run."""

from pylbr.selftest.build import build

__all__ = ["build"]
