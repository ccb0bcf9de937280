NAMES: tuple[str, ...]
TITLES: dict[str, str]

def names_of(bits: int) -> tuple[str, ...]: ...
