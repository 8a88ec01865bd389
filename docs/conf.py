"""How Sphinx builds the documentation: `nox -s docs`."""

import ast
import importlib.metadata
import pkgutil

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import agentpool

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
# from the network, and the build must work without. Every name of ours is, but for
# type variables and for base classes that are nobody's business.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!agentpool).*"),
    (r"py:.*", r".*\.([TPR](_co)?|_\w+)"),
    (r"py:.*", r"agentpool\.(\w+\.)*_\w+\.\w+"),  # bases that live in a private room
]


def find_field_texts(_app: Sphinx) -> None:
    """Let autodoc find the sentences under the fields of public classes.

    It looks for them in the module that a class says it is from. Ours say the face
    that exports them; the sentences are in the room that defines them.
    """
    names = [info.name for info in pkgutil.walk_packages(agentpool.__path__, "agentpool.")]
    rooms = [ModuleAnalyzer.for_module(name) for name in ("agentpool", *names)]
    for room in rooms:
        room.analyze()
    texts = {field: text for room in rooms for field, text in room.attr_docs.items()}
    for face in rooms:
        if "._" in face.modname:
            continue
        imports = [n for n in ast.walk(ast.parse(face.code)) if isinstance(n, ast.ImportFrom)]
        shown = {a.name for n in imports for a in n.names if a.asname == a.name}
        # Fields of any class, and the constants that this face shows.
        wanted = {(owner, name): t for (owner, name), t in texts.items() if owner or name in shown}
        face.attr_docs = wanted | face.attr_docs


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", find_field_texts)
