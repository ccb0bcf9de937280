"""Recording of a whole Linux that qemu-system-x86_64 boots: its kernel, modules and programs."""
