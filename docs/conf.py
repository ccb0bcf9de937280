"""Sphinx: these pages, the API of the .py files as text, of the compiled modules imported."""

project = "pylbr"
author = "the pylbr developers"
extensions = [
    "myst_parser", "autoapi.extension", "sphinx.ext.autodoc", "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]
html_theme = "furo"
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
