"""Warm the machine up once, at the bake; each task begins where the warm-up ended."""

import asyncio
import os

from supermachine import WarmupVm
from supermachine.aio import Image, Pool


def warm_up(vm: WarmupVm) -> None:
    vm.exec(["sh", "-c", "echo prepared > /root/state"], timeout=60)


async def task(pool: Pool, code: str) -> str:
    async with await pool.acquire() as vm:
        out = await vm.exec(["sh", "-c", code])
        return out.stdout.decode()


async def main() -> None:
    image = await Image.build(
        os.environ.get("TEST_IMAGE", "alpine:latest"), warmup=warm_up, warmup_tag="example-v1"
    )
    async with await image.pool(min=1, max=2, acquire_timeout=30) as pool:
        # Of one that is cancelled, the command is killed and the machine is free.
        slow = asyncio.ensure_future(task(pool, "sleep 1000"))
        print(await task(pool, "cat /root/state"))
        slow.cancel()


asyncio.run(main())
