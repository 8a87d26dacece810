// Bake an image, lease a machine, run a command in it.
import { Image } from '@supermachine/core'

const image = await Image.build({ ref: process.env.TEST_IMAGE ?? 'alpine:latest' })
const pool = await image.pool({ min: 1, max: 4 })
const vm = await pool.acquire()
try {
  const { stdout, exitCode } = await vm.exec({
    argv: ['echo', 'hello from the VM'],
    timeoutMs: 60_000
  })
  console.log(exitCode, stdout.toString())
} finally {
  await vm.release()
}
await pool.shutdown()
