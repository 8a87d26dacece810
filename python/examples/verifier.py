"""Run programs that nobody trusts, each in a machine as it was baked."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Tuple

from supermachine import Image, Pool


def run(pool: Pool, source: str) -> Tuple[bool, str]:
    with pool.acquire() as vm:
        out = vm.exec(["sh", "/tmp/code.sh"], files={"/tmp/code.sh": source}, timeout=60)
        return out.exit_code == 0, out.stdout.decode()


candidates = ["echo $((6 * 7))", "exit 3", "touch /trace; ls /trace", "ls /trace"]
image = Image.build(os.environ.get("TEST_IMAGE", "alpine:latest"))
with image.pool(min=0, max=2) as pool, ThreadPoolExecutor() as threads:
    results = list(threads.map(lambda source: run(pool, source), candidates))
print(results)
assert not results[3][0], "what one candidate wrote, another has seen"
