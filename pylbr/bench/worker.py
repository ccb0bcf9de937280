"""Measures one row with the pylbr of another tree, and prints the values as JSON.

    python .../pylbr/bench/worker.py TREE ROW full|quick

The suite is this file's; what it measures is the tree's.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path


def main(tree: str, name: str, form: str) -> int:
    """Import the pylbr of `tree`, the suite of here, and measure."""
    here = Path(__file__).resolve().parent
    # Not the folder of this file, whose modules have names of the library's.
    sys.path[:] = [tree, *(path for path in sys.path if Path(path or ".").resolve() != here)]
    # A package installed for editing finds its modules itself, those that the tree lacks, too.
    sys.meta_path[:] = [finder for finder in sys.meta_path
                        if not getattr(finder, "__module__", "").startswith("__editable__")]
    import pylbr

    if Path(pylbr.__file__).resolve().parent.parent != Path(tree).resolve():
        print(json.dumps({"why": f"no pylbr in {tree}"}))
        return 0
    spec = importlib.util.spec_from_file_location(
        "pylbr.bench", here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pylbr.bench"] = pylbr.bench = module  # type: ignore[attr-defined]
    spec.loader.exec_module(module)
    from pylbr.bench.alone import values_of

    found = values_of(name, form == "quick")
    mixed = _from_elsewhere(Path(tree).resolve())
    print(json.dumps({"why": f"{mixed[0]} is not the tree's"} if mixed else found))
    return 0


def _from_elsewhere(tree: Path) -> list[str]:
    """Modules of what is measured that were not read in the tree."""
    return [name for name, module in sorted(sys.modules.items())
            if name.partition(".")[0] in ("pylbr", "lbrcore")
            and not f"{name}.".startswith("pylbr.bench.") and getattr(module, "__file__", None)
            and not Path(str(module.__file__)).resolve().is_relative_to(tree)]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
