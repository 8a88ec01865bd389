"""The reference by need: tables of names in groups, and every name in full below them.

A page of the reference lists its names like this, once for each group:

    .. names:: agentpool.tools

       tool
       FunctionTool

and ends in ``.. names-in-full:: agentpool.tools``, which documents them in that order.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
from collections.abc import Iterator
from types import ModuleType

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docstrings import prepare_docstring
from sphinx.util.docutils import SphinxDirective

LISTED = "agentpool_names"
"""Where the names of a page are kept while it is read."""


class Names(SphinxDirective):
    """A table of some names of a module, each with the first sentence about it."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        face = self.arguments[0]
        names = [name for line in self.content for name in line.split()]
        self.env.temp_data.setdefault(LISTED, []).extend(names)
        module = importlib.import_module(face)
        lines = [".. list-table::", "   :class: summary", ""]
        for name in names:
            lines.append(f"   * - :py:obj:`~{face}.{name}`")
            lines.append(f"     - {' '.join(first_paragraph(words_about(module, name)))}")
        return nested(self, [*lines, ""])


class NamesInFull(SphinxDirective):
    """Everything about the names that the page's tables list."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the description of each name.

        Raises:
            ValueError: If the page lists a name twice.
        """
        face = self.arguments[0]
        names = self.env.temp_data.pop(LISTED, [])
        if len(names) != len(set(names)):
            raise self.error(f"the page of {face} lists a name twice")
        module = importlib.import_module(face)
        return nested(self, [line for name in names for line in entry(module, face, name)])


def entry(module: ModuleType, face: str, name: str) -> Iterator[str]:
    """Yield the lines that document *name* of *module*."""
    thing = getattr(module, name)
    if inspect.isclass(thing):
        kind = "autoexception" if issubclass(thing, BaseException) else "autoclass"
        yield from (f".. {kind}:: {face}.{name}", "   :members:", "")
    elif inspect.isfunction(thing):
        yield from (f".. autofunction:: {face}.{name}", "")
    else:
        words = (f"   {line}" for line in words_about(module, name))
        yield from (f".. py:data:: {face}.{name}", "", *words, "")


def words_about(module: ModuleType, name: str) -> list[str]:
    """Return the lines that say what *name* of *module* is.

    Raises:
        LookupError: If there are none.
    """
    thing = getattr(module, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return prepare_docstring(inspect.getdoc(thing) or "")
    # The text below an assignment, in the module in which that stands.
    for home in [one for one in sys.modules if one.partition(".")[0] == "agentpool"]:
        if getattr(sys.modules[home], name, None) is thing:
            found = ModuleAnalyzer.for_module(home).find_attr_docs().get(("", name))
            if found:
                return list(found)
    raise LookupError(f"nothing is said about {module.__name__}.{name}")


def first_paragraph(lines: list[str]) -> list[str]:
    """Return the first of the paragraphs in *lines*."""
    return list(itertools.takewhile(str.strip, lines))


def nested(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    """Return what *lines* of reStructuredText become."""
    source, _ = directive.get_source_info()
    box = nodes.container()
    directive.state.nested_parse(StringList(lines, source=source), directive.content_offset, box)
    return box.children


def keep_first_colon(
    _app: Sphinx, what: str, _name: str, _thing: object, _options: object, lines: list[str]
) -> None:
    """Keep the text of a field together: Napoleon takes what is before a colon for its type."""
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # an empty comment: only a first line is looked at


def leave_out_fields(
    _app: Sphinx, _what: str, _name: str, _thing: object, _options: object, lines: list[str]
) -> None:
    """Leave the fields out of a class's words, in which ``help`` has them: each has its entry."""
    if "Fields:" in lines:
        del lines[lines.index("Fields:") :]


def name_the_public_base(
    app: Sphinx, what: str, _name: str, thing: object, _options: object, lines: list[str]
) -> None:
    """Say which public error an error is a kind of; other bases help nobody."""
    if what != "exception" or not inspect.isclass(thing):
        return
    public: dict[str, str] = app.config.agentpool_public
    for base in thing.__bases__:
        shown = public.get(f"{base.__module__}.{base.__name__}")
        if shown is not None:
            lines += ["", f"It is a kind of :py:exc:`~{shown}`."]


def hide_private_parameters(
    _app: Sphinx,
    _what: str,
    _name: str,
    _thing: object,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None] | None:
    """Leave out how a thing is made that only agentpool makes."""
    if signature is not None and signature.startswith(("(_", "(*, _")):
        return "", returns
    return None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_config_value("agentpool_public", {}, "env", types=[dict])
    app.add_directive("names", Names)
    app.add_directive("names-in-full", NamesInFull)
    app.connect("autodoc-process-docstring", leave_out_fields, priority=300)
    app.connect("autodoc-process-docstring", keep_first_colon, priority=400)  # before Napoleon
    app.connect("autodoc-process-docstring", name_the_public_base, priority=600)
    app.connect("autodoc-process-signature", hide_private_parameters)
