"""Branch recorders of other architectures, with the interface of `lbrcore.LbrState`.

`brbe`: Arm's Branch Record Buffer Extension (FEAT_BRBE).  `ctr`: RISC-V's Control Transfer Records
(Smctr, Ssctr).  Both take `lbrcore.BRANCH_DTYPE` and hand out `lbrcore.ENTRY_DTYPE`; their own
registers are rows (`brbe_rows`, `ctr_rows`).
"""
