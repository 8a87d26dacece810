// Run programs that nobody trusts, each in a machine as it was baked.
import { Image } from '@supermachine/core'

const image = await Image.build({ ref: process.env.TEST_IMAGE ?? 'alpine:latest' })
const pool = await image.pool({ min: 0, max: 2, restoreOnRelease: true })

async function run(/** @type {string} */ source) {
  const vm = await pool.acquire()
  try {
    const out = await vm.exec({
      argv: ['sh', '/tmp/code.sh'],
      stageFiles: { '/tmp/code.sh': source },
      timeoutMs: 60_000
    })
    return { ok: out.exitCode === 0, stdout: out.stdout.toString() }
  } finally {
    await vm.release()
  }
}

const candidates = ['echo $((6 * 7))', 'exit 3', 'touch /trace; ls /trace', 'ls /trace']
const results = await Promise.all(candidates.map(run))
console.log(results)
if (results[3].ok) throw new Error('what one candidate wrote, another has seen')
await pool.shutdown()
