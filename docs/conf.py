"""Sphinx: these pages, the API of the .py files as text, of the compiled modules imported."""

import importlib
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
# Compiled modules have their prose themselves; stubs have types only.
os.environ["SPHINX_AUTODOC_IGNORE_NATIVE_MODULE_TYPE_STUBS"] = "1"
listed = Path(__file__).with_name("compiled.md").read_text()
for compiled in re.findall(r"automodule:: (\S+)", listed):
    importlib.import_module(compiled)  # a page of what has not been built would be empty

project = "pylbr"
author = copyright = "the pylbr developers"
extensions = [
    "myst_nb", "autoapi.extension", "sphinx.ext.autodoc", "sphinx.ext.napoleon",
    "diagrams",
]
html_theme = "furo"
highlight_language = "none"
html_static_path = ["_static"]
html_css_files = ["pictures.css"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
nb_execution_mode = "off"  # the tests execute the notebook; the page shows what it stores
exclude_patterns = ["_build", "jupyter_execute"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
napoleon_use_ivar = True
autoapi_dirs = ["../lbrcore", "../pylbr"]
autoapi_file_patterns = ["*.py"]
autoapi_ignore = ["*/cli/*", "*/library/*"]
autoapi_options = ["members", "show-module-summary"]
autoapi_keep_files = False
autoapi_python_class_content = "both"
suppress_warnings = ["autoapi", "myst.xref_missing", "docutils", "ref"]
