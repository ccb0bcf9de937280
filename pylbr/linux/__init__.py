"""Linux on the bare-metal machine: kernels, their boot protocol, their files."""
