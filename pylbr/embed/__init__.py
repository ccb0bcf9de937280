"""LBRs in larger emulators: Unicorn, and a bare-metal machine on it."""
