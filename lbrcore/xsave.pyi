from collections.abc import Mapping
from typing import Any

from typing_extensions import Buffer

from lbrcore.lbr import LbrState

def component(state: LbrState) -> bytes:
    """Component 15 of `state`: CTL, DEPTH, LER and the entries below DEPTH.

    Returns
    -------
    bytes
        40 + 24 * depth bytes (SDM vol. 1, 13.5.12).

    Raises
    ------
    ValueError
        In the legacy flavour, which is not XSAVE-managed.
    """

def restore_component(state: LbrState, component: Buffer) -> None:
    """Restore from the bytes of component 15, as XRSTORS does when XSTATE_BV[15] is set.

    A component saved at another DEPTH loads CTL and LER, zeroes all records and leaves DEPTH
    (SDM vol. 1, 13.12).

    Raises
    ------
    Fault
        Reserved bits of CTL or DEPTH are set; the state is as it was.
    ValueError
        The bytes end before the entries that the saved DEPTH announces do.
    """

def xsaves(
    state: LbrState,
    area: Buffer,
    rfbm: int = ...,
    *,
    offset: int = 0,
    address: int | None = None,
    xinuse: int = 0,
    sizes: Mapping[int, int] | None = None,
    aligned: int = 0,
) -> None:
    """XSAVES of component 15 and the header into a compacted area (SDM vol. 1, 13.11).

    Parameters
    ----------
    area : writable buffer
    rfbm : int
        EDX:EAX & (XCR0 | IA32_XSS).
    offset : int
        Where the area starts in the buffer, in bytes.
    address : int or None
        The guest's linear address of the area; `offset` if left out.  #GP unless a multiple
        of 64.
    xinuse : int
        XINUSE of the other components, which the caller saves.
    sizes : mapping of int to int
        Bytes of each other component in `rfbm` above 1 (CPUID.0DH.i:EAX).
    aligned : int
        Bit i: component i starts on a 64-byte boundary (CPUID.0DH.i:ECX[1]).

    Raises
    ------
    Fault
        The address is not aligned.
    ValueError
        The area is too short, or a component has no size; nothing was written.
    """

def xrstors(
    state: LbrState,
    area: Buffer,
    rfbm: int = ...,
    *,
    offset: int = 0,
    address: int | None = None,
    supported: int = ...,
    sizes: Mapping[int, int] | None = None,
    aligned: int = 0,
) -> None:
    """XRSTORS of component 15 from a compacted area (SDM vol. 1, 13.12).

    Parameters
    ----------
    area : buffer
    rfbm : int
        EDX:EAX & (XCR0 | IA32_XSS).
    supported : int
        XCR0 | IA32_XSS.
    offset, address, sizes, aligned
        As in `xsaves`.

    Raises
    ------
    Fault
        Unaligned address, refused header, reserved bits in the component; the state is as it
        was, which the manual permits.
    ValueError
        The area is too short, or a component has no size.
    """

__test__: dict[str, Any]
