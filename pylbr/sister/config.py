"""What one implementation offers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BrbeConfig", "CtrConfig"]


@dataclass(frozen=True)
class BrbeConfig:
    """An implementation of FEAT_BRBE.

    Parameters
    ----------
    records : int
        BRBIDR0_EL1.NUMREC: 8, 16, 32 or 64.
    el2 : bool
        EL2 exists.
    tme : bool
        FEAT_TME exists.
    snapshot : bool
        FEAT_PMUv3_SS exists.

    Raises
    ------
    ValueError
    """

    records: int = 64
    el2: bool = True
    tme: bool = False
    snapshot: bool = False

    def __post_init__(self) -> None:
        if self.records not in (8, 16, 32, 64):
            raise ValueError(f"records: must be 8, 16, 32 or 64, not {self.records}")


@dataclass(frozen=True)
class CtrConfig:
    """An implementation of Smctr and Ssctr.

    Parameters
    ----------
    depths : tuple of int
        Supported depths, of 16, 32, 64, 128 and 256, ascending.
    rasemu, external_traps, type_filter, misp : bool
        Optional fields: RASEMU; MTE and STE; bits 47:32 of the control registers; ctrtarget.MISP.
    cycles : bool
        ctrdata.CCV and CC exist.
    exponent_bits : int
        Of CC: 0 to 4.
    sscofpmf, hypervisor : bool
        These extensions exist.

    Raises
    ------
    ValueError
    """

    depths: tuple[int, ...] = (16, 32, 64, 128, 256)
    rasemu: bool = True
    external_traps: bool = True
    type_filter: bool = True
    misp: bool = True
    cycles: bool = True
    exponent_bits: int = 4
    sscofpmf: bool = True
    hypervisor: bool = True

    def __post_init__(self) -> None:
        known = (16, 32, 64, 128, 256)
        if not self.depths or list(self.depths) != [d for d in known if d in self.depths]:
            raise ValueError(f"depths: must be of {known}, ascending, not {self.depths}")
        if not 0 <= self.exponent_bits <= 4:
            raise ValueError(f"exponent_bits: must be 0 to 4, not {self.exponent_bits}")
