"""How Sphinx builds the documentation: `nox -s docs`."""

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

FACES = (
    "agentpool",
    "agentpool.drivers",
    "agentpool.tools",
    "agentpool.memory",
    "agentpool.journal",
    "agentpool.cluster",
    "agentpool.observe",
    "agentpool.testing",
    "agentpool.abc",
)
"""Each public thing is documented once, in the first of these that shows it."""

project = "agentpool"
author = "the agentpool contributors"
copyright = author  # noqa: A001  # the name that Sphinx looks for
release = importlib.metadata.version("trio-agentpool")

sys.path.append(str(Path(__file__).parent))  # where our own extensions are
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "_faces",
    "_tables",
]
exclude_patterns = ["_build", "news"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["agentpool.css"]
html_title = f"agentpool {release}"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # MARKERS, and not thirty of them
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"

napoleon_numpy_docstring = False
# Sections of our docstrings that Google's style does not have.
napoleon_custom_sections = ["Cancellation", "Source"]

# Names of other packages are not looked up: their inventories would be fetched
# from the network, and the build must work without. Every name of ours is, but for
# type variables and for base classes that are nobody's business.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!agentpool).*"),
    (r"py:.*", r".*\.([TPR](_co)?|_\w+)"),
    (r"py:.*", r"agentpool\.(\w+\.)*_\w+(\.\w+)+"),  # bases that live in a private room
]


def public_names() -> dict[str, str]:
    """Return where each public thing is documented, by the room that it lives in."""
    found: dict[str, str] = {}
    for face in FACES:
        module = importlib.import_module(face)
        for name in module.__all__:
            thing = getattr(module, name)
            home = getattr(thing, "__module__", None)
            found.setdefault(f"{home}.{name}", f"{face}.{name}")
            found.setdefault(name, f"{face}.{name}")
    return found


PUBLIC = public_names()
agentpool_public = {home: shown for home, shown in PUBLIC.items() if "." in home}


def is_shown_elsewhere(
    app: Sphinx,
    _what: str,
    name: str,
    thing: object,
    skip: bool,  # noqa: FBT001  # as Sphinx calls it
    _options: object,
) -> bool | None:
    """Leave out of a face what another face documents."""
    face = app.env.current_document.autodoc_module
    home = getattr(thing, "__module__", None)
    shown = PUBLIC.get(f"{home}.{name}")
    if skip or shown is None or face not in FACES:
        return None
    return True if shown != f"{face}.{name}" else None


def point_to_the_face(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.reference | None:
    """Link a name of a private room to the face that shows it."""
    target = str(node.get("reftarget", ""))
    owner, _, member = target.rpartition(".")
    shown = PUBLIC.get(target) or PUBLIC.get(target.rpartition(".")[2])
    if shown is None and owner in PUBLIC:
        shown = f"{PUBLIC[owner]}.{member}"
    if shown is None or shown == target or node.get("refdomain") != "py":
        return None
    document = node.get("refdoc", env.docname)
    domain = env.domains.python_domain
    found = domain.find_obj(env, None, None, shown, None, 0)
    if not found:
        return None
    name, entry = found[0]
    return make_refnode(app.builder, document, entry.docname, entry.node_id, contnode, name)


def put_the_news_in(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Fill the changelog's page with what towncrier makes of docs/news."""
    if docname == "explanation/changelog":
        root = Path(__file__).parents[1]
        command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", release]
        done = subprocess.run(
            command,
            cwd=root,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        source[0] = source[0].replace("<!-- news -->", done.stdout)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", is_shown_elsewhere)
    app.connect("source-read", put_the_news_in)
    app.connect("missing-reference", point_to_the_face)
