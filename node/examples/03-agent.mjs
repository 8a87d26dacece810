// Warm the machine up once, at the bake; each task begins where the warm-up ended.
import { Image } from '@supermachine/core'

const image = await Image.build({
  ref: process.env.TEST_IMAGE ?? 'alpine:latest',
  warmupTag: 'example-v1',
  warmup: async (vm) => {
    await vm.exec({ argv: ['sh', '-c', 'echo prepared > /root/state'], timeoutMs: 60_000 })
  }
})
const pool = await image.pool({ min: 1, max: 2, acquireTimeoutMs: 30_000 })

async function task(/** @type {string} */ code, /** @type {AbortSignal} */ signal) {
  const vm = await pool.acquire({ signal })
  try {
    return await vm.exec({ argv: ['sh', '-c', code], signal })
  } finally {
    await vm.release()
  }
}

const done = await task('cat /root/state', AbortSignal.timeout(120_000))
console.log(done.stdout.toString())
await pool.shutdown()
