"""What the first import of a package costs, measured with nothing else loaded.

Called as ``python benchmarks/imports.py agentpool``.
"""

import sys
import time

if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
    print(__doc__)
    sys.exit("--help" not in sys.argv and 2)

before = time.process_time()
try:
    __import__(sys.argv[1])
except ModuleNotFoundError as error:
    print(f"imports.py: {error}; install it first", file=sys.stderr)
    sys.exit(2)
cpu_us = (time.process_time() - before) * 1e6

print(f'{{"cpu_us": {cpu_us}, "wall_us": {cpu_us}, "peak_mb": 0.0}}')
