"""How Sphinx builds the documentation: `nox -s docs`."""

import importlib
import importlib.metadata
import sys

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

FACES = (
    "agentpool",
    "agentpool.drivers",
    "agentpool.memory",
    "agentpool.tools",
    "agentpool.observe",
)

project = "agentpool"
author = "the agentpool contributors"
copyright = author  # noqa: A001  # the name that Sphinx looks for
release = importlib.metadata.version("trio-agentpool")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "news"]
html_theme = "furo"
html_title = f"agentpool {release}"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"

napoleon_numpy_docstring = False
# Sections of our docstrings that Google's style does not have.
napoleon_custom_sections = [("Cancellation", "notes"), ("Source", "notes")]

# Names of other packages are not looked up: their inventories would be fetched
# from the network, and the build must work without. Every name of ours is.
nitpick_ignore_regex = [(r"py:.*", r"(?!agentpool).*")]


def find_field_texts(_app: Sphinx) -> None:
    """Let autodoc find the sentences under the fields of public classes.

    It looks for them in the module that a class says it is from. Ours say the face
    that exports them; the sentences are in the room that defines them.
    """
    for face in FACES:
        importlib.import_module(face)
        shown = ModuleAnalyzer.for_module(face)
        shown.analyze()
        for room in [name for name in sys.modules if name.startswith(f"{face}._")]:
            analyzer = ModuleAnalyzer.for_module(room)
            analyzer.analyze()
            shown.attr_docs |= analyzer.attr_docs
            shown.tagorder |= analyzer.tagorder


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", find_field_texts)
