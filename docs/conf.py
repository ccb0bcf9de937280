"""Sphinx: these pages, the API of the .py files as text, of the compiled modules imported."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "pylbr"
author = "the pylbr developers"
extensions = [
    "myst_parser", "autoapi.extension", "sphinx.ext.autodoc", "sphinx.ext.napoleon",
    "diagrams",
]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pictures.css"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
napoleon_use_ivar = True
autoapi_dirs = ["../lbrcore", "../pylbr"]
autoapi_file_patterns = ["*.py"]
autoapi_ignore = ["*/cli/*"]
autoapi_options = ["members", "show-module-summary"]
autoapi_keep_files = False
autoapi_python_class_content = "both"
suppress_warnings = ["autoapi", "myst.xref_missing", "docutils", "ref"]
