"""From a program to an optimised program: record, profile, change the layout, measure."""
