"""``python -m agentpool``: the command line."""

import sys

from agentpool._cli import main

if __name__ == "__main__":
    sys.exit(main())
