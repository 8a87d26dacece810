"""One command for each line of the standard input; what it took, in milliseconds, is a
line of the standard output. Argument: a snapshot."""

import sys
import time

from supermachine import Image

with Image.from_snapshot(sys.argv[1]).start() as vm:
    for _ in sys.stdin:
        begun = time.perf_counter()
        out = vm.exec(["true"])
        took = time.perf_counter() - begun
        assert out.exit_code == 0, out
        print(took * 1e3, flush=True)
