"""What the first import of a package costs, measured with nothing else loaded.

Called as ``python benchmarks/imports.py agentpool``.
"""

import sys
import time

before = time.process_time()
__import__(sys.argv[1])
cpu_us = (time.process_time() - before) * 1e6

print(f'{{"cpu_us": {cpu_us}, "wall_us": {cpu_us}, "peak_mb": 0.0}}')
