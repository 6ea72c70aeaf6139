"""How Sphinx builds the site: `make docs`. The pages are Markdown, the reference comes from docstrings."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import trio_ipc  # noqa: E402 - it is found by the line above

project = "trio_ipc"
author = "The trio_ipc maintainers"
project_copyright = author
release = version = trio_ipc.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "sphinx_copybutton",
    "public_names",
    "pages_outside",
]

# --- Pages --------------------------------------------------------------------------------------------------

exclude_patterns = ["inventories/*"]
# `:::` stays readable where Markdown knows no directives.
myst_enable_extensions = ["colon_fence"]
# The anchors that other renderers give to headings, so that one link works in both.
myst_heading_anchors = 6

# --- Reference ----------------------------------------------------------------------------------------------

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
# A default as it is written, not as it prints.
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
# Each attribute is something to link to.
napoleon_use_ivar = False
napoleon_attr_annotations = True
napoleon_numpy_docstring = False

# A copy in the tree, so that a build needs no network. Trio and protobuf: _ext/public_names.py.
intersphinx_mapping = {"python": ("https://docs.python.org/3", "inventories/python.inv")}

nitpicky = True
nitpick_ignore_regex = [
    # type variables and aliases inside of a signature
    (r"py:.*", r"(.*\.)?_?[A-Z]\w*T"),
    # libraries that have no inventory here
    (r"py:.*", r"(anyio|attrs?|google|opentelemetry|prometheus_client|pytest|_pytest)\..*"),
]

# --- Looks --------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "trio_ipc"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_copy_source = False
html_show_sphinx = False
# What a program prints is no command to be copied.
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"
