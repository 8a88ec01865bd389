"""Runs every Python example of README.md and docs/ as a test.

It is here and not in tests/, because pytest asks only the folders above a file.
"""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# A block sees the names of the blocks above it on the same page.
pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=["docs/news/*"],
).pytest()
