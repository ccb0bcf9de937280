"""What readers and writers of every format share: sources, lines, atomic output, ELF files."""
