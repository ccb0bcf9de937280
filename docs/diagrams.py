"""Diagrams in the language of mermaid, shown as the pictures that tools/diagrams.py has drawn."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "images" / "diagrams"


def pages() -> list[Path]:
    """Pages that may have diagrams: README is on the first page of the site."""
    return [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def blocks(page: str) -> list[str]:
    """The diagrams of a page."""
    return re.findall(r"^```mermaid\n(.*?)^```$", page, re.M | re.S)


def picture_of(text: str) -> Path:
    """Where the picture of a diagram is, once it has been drawn."""
    return PICTURES / f"{hashlib.sha256(text.strip().encode()).hexdigest()[:12]}.svg"


def setup(app: object) -> dict[str, bool]:
    """The directive for Sphinx."""
    from docutils import nodes
    from docutils.parsers.rst import Directive
    from sphinx.errors import ExtensionError

    class Diagram(Directive):
        has_content = True

        def run(self) -> list[nodes.Node]:
            text = "\n".join(self.content)
            picture = picture_of(text)
            if not picture.exists():
                raise ExtensionError(f"not drawn: run tools/diagrams.py:\n{text}")
            image = nodes.image(uri=f"images/diagrams/{picture.name}", classes=["diagram"],
                                alt="Diagram: " + " ".join(text.split()))
            # By itself it is as large as the window: the column is narrow for thirty boxes.
            return [nodes.reference("", "", image, refuri=f"_images/{picture.name}")]

    app.add_directive("mermaid", Diagram)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True}
