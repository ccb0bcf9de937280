"""Branch traces and files of branch stacks: the container, and readers of others' formats."""
