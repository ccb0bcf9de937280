"""From a program to an optimised program: record, profile, lay out anew, measure."""
