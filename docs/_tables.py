"""Tables that can be read on a telephone: each cell knows the name of its column."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx

WIDE = 2
"""Columns from which on a table does not fit a small screen."""

NAMED = 3
"""Columns from which on each cell needs the name of its column."""


def name_cells(_app: Sphinx, doctree: nodes.document, _docname: str) -> None:
    """Mark wide tables, and put the name of its column into each cell, for the style sheet."""
    for table in doctree.findall(nodes.table):
        head, body = next(table.findall(nodes.thead), None), next(table.findall(nodes.tbody), None)
        if head is None or body is None:
            continue
        titles = [cell.astext() for cell in head.findall(nodes.entry)]
        if len(titles) < WIDE:
            continue
        table["classes"].append("stacks")
        for row in body.findall(nodes.row) if len(titles) >= NAMED else ():
            for title, cell in list(zip(titles, row.children, strict=True))[1:]:
                if title:
                    label = nodes.inline("", title, classes=["column-name"])
                    cell.insert(0, nodes.paragraph("", "", label, classes=["column-name"]))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("doctree-resolved", name_cells)
