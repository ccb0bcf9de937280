"""Make pylbr/html/libraries/libraries.min.js, its licences and SHA256SUMS; needs npm.

The result is committed: building and installing pylbr needs no npm.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

PLACE = Path(__file__).resolve().parent.parent / "pylbr" / "html" / "libraries"
SOURCES = ("package.json", "package-lock.json", ".npmrc", "libraries.js")
MADE = ("libraries.min.js", "libraries.min.css", "LICENSES.txt")


def packages(folder: Path) -> list[tuple[str, str, str, Path]]:
    """Name, version, licence and folder of all that is bundled."""
    lock = json.loads((folder / "package-lock.json").read_text())
    return [(path.rpartition("node_modules/")[2], found["version"], found["license"], folder / path)
            for path, found in sorted(lock["packages"].items()) if path and not found.get("dev")]


def licences(folder: Path) -> str:
    """The licence of each package, each text once."""
    texts: dict[tuple[str, str], list[str]] = {}
    for name, version, kind, place in packages(folder):
        (text,) = [one.read_text().strip() for one in place.iterdir()
                   if one.name.lower().startswith("license")]
        texts.setdefault((kind, text), []).append(f"{name} {version}")
    line = "=" * 78
    return "libraries.min.js and libraries.min.css are made of the packages below.\n" + "".join(
        f"\n{line}\n{', '.join(names)} ({kind})\n{line}\n\n{text}\n"
        for (kind, text), names in texts.items())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in SOURCES:
            shutil.copy(PLACE / source, folder)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder,
                       check=True)
        subprocess.run(["npm", "run", "bundle"], cwd=folder, check=True)
        (folder / "LICENSES.txt").write_text(licences(folder))
        for made in MADE:
            shutil.copy(folder / made, PLACE)
    sums = "".join(f"{hashlib.sha256((PLACE / made).read_bytes()).hexdigest()}  {made}\n"
                   for made in (*MADE, *SOURCES))
    (PLACE / "SHA256SUMS").write_text(sums)


if __name__ == "__main__":
    main()
