"""Sampling: events and periods in, branch-stack samples out."""
