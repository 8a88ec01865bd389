"""How Sphinx builds the documentation: `nox -s docs`."""

import importlib.metadata

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
