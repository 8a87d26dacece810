"""Bake an image, lease a machine, run a command in it."""

import os

from supermachine import Image

image = Image.build(os.environ.get("TEST_IMAGE", "alpine:latest"))
with image.pool(min=1, max=4) as pool, pool.acquire() as vm:
    out = vm.exec(["cat", "/tmp/task"], files={"/tmp/task": "hello from the VM\n"})
    print(out.exit_code, out.stdout.decode())
