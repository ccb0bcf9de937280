"""From rows of a trace to a summary; `lbrcore.summary.Summary` is the public form."""
