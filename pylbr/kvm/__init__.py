"""The hypervisor's side: vCPUs, VM entry and exit, what of the LBRs a guest may touch."""
