from typing_extensions import disjoint_base

EVENT_ON_TASK: int

@disjoint_base
class Policy:
    name: str
    claims: tuple[str, ...] | None
    by_design: tuple[str, ...] | None
    legacy: bool
    guest_short: bool
    guest_flag: bool
    host_short: bool
    host_flag: bool
    serves_at_entry: bool
    sharing: int
    refuses_guest_tracing: bool
    any_depth: bool
    mediated: bool
    freeze_clears_enable: bool
    guest_pebs: bool
    nested_controls: bool
    def __new__(cls) -> Policy: ...
