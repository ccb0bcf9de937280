"""Behaviour that the manuals leave to the implementation, or that no text at hand confirms.

Each row records one choice: name -> (value, what is open).
"""

from __future__ import annotations

from typing import Final

__all__ = ["CHOICES"]

CHOICES: Final[dict[str, tuple[str, str]]] = {
    "BRBE_RES0": ("writes ignored", "Arm: software shall write 0 to RES0 bits; what else happens "
                  "is not stated."),
    "BRBE_RESET": ("zero", "Arm: fields reset to UNKNOWN values; here registers, records and cycle "
                   "counter are 0."),
    "BRBE_BRB_INJ_LEAVES": ("zero", "Arm: BRB INJ leaves the injection registers UNKNOWN."),
    "BRBE_EL3": ("never recorded", "FEAT_BRBEv1p1 records EL3 where MDCR_EL3.E3BREC and E3BREW "
                 "differ; MDCR_EL3 is not modelled, SBRBE counts as 0b11."),
    "BRBE_ISB": ("no branch", "IMPLEMENTATION DEFINED whether ISB makes a record."),
    "BRBE_LASTFAILED": ("the next record", "UNCONFIRMED, FEAT_TME: a failed transaction sets "
                        "BRBFCR_EL1.LASTFAILED, the next record takes and clears it.  Manuals "
                        "since 2025 have neither."),
    "BRBE_FZP_WITHOUT_EL2": ("BRBCR_EL1.FZP", "UNCONFIRMED: the pseudocode includes all counters "
                             "without looking at FZP where EL2 is missing; the register's text "
                             "names FZP."),
    "BRBE_CC_UNKNOWN": ("after every prohibited stretch", "A change of EL that made no branch is "
                        "not seen: only branches show where the program was."),
    "BRBE_CANONICAL": ("as given", "Addresses are kept as 64 bits."),
    "CTR_DEPTH_UNSUPPORTED": ("keeps the depth", "WARL: a write of a depth that is not supported "
                              "leaves sctrdepth as it was."),
    "CTR_DEPTH_CHANGE": ("WRPTR modulo the depth", "WRPTR and newly accessible entries are "
                         "unspecified but legal: entries keep what they held."),
    "CTR_RASEMU_CYCLES": ("CCV = 0", "With RASEMU calls may be recorded with CCV 0: so they are; "
                          "the counter restarts at each."),
    "CTR_POP": ("clears V alone", "PC, target and data of a popped entry stay."),
    "CTR_PARTIAL_DATA": ("complete", "ctrdata of records whose source or target is 0 is filled in "
                         "as of others."),
    "CTR_SMSTATEEN": ("all 1", "Access control by mstateen0.CTR and hstateen0.CTR is not modelled: "
                      "nothing is kept from lower modes but what the CSR's own level keeps."),
    "CTR_CUSTOM": ("0", "No custom extension: these bits are read-only 0."),
}
