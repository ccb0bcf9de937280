"""The host kernel's side: the processor as the kernel drives it, perf events, the PMI handler."""
