"""One HTML file with everything in it: data, scripts, style; nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from typing import Any, Final

__all__ = ["page"]

#: In the order in which they use one another.
_SCRIPTS: Final = ("common", "table", "code", "flow", "flame", "timeline", "tables", "main")


def page(content: dict[str, Any]) -> str:
    """The page of some content, as `pylbr.html.content` makes it."""
    here = files("pylbr.html")
    libraries = (here / "libraries" / "libraries.min.js").read_text("utf-8")
    scripts = "\n".join((here / "page" / f"{name}.js").read_text("utf-8") for name in _SCRIPTS)
    style = ((here / "libraries" / "libraries.min.css").read_text("utf-8")
             + (here / "page" / "page.css").read_text("utf-8"))
    licences = (here / "libraries" / "LICENSES.txt").read_text("utf-8")
    parts = {
        "policy": _policy(libraries, scripts), "title": html.escape(f"{content['title']} - pylbr"),
        "style": style, "libraries": libraries, "scripts": scripts,
        "data": _embedded({**content, "licences": licences}),
    }
    template = (here / "page" / "page.html").read_text("utf-8")
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], template)


def _policy(*scripts: str) -> str:
    """Run these scripts and no others, and load nothing from anywhere."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
            "img-src data:; base-uri 'none'; form-action 'none'")


def _embedded(content: dict[str, Any]) -> str:
    """JSON that no content can end early: `<` starts the only way out of a script element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
