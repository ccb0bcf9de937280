"""The host kernel's side: perf events, their scheduling, the PMI handler."""
