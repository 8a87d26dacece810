// Sources live on the host, and what is installed is on a disk that is baked with the
// image: thousands of small files are written where that is fast, and once.
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { Image } from '@supermachine/core'

const workspace = fs.mkdtempSync(path.join(os.tmpdir(), 'workspace-'))
const member = path.join(workspace, 'packages/greeter')
fs.mkdirSync(member, { recursive: true })
const write = (/** @type {string} */ name, /** @type {string} */ text) =>
  fs.writeFileSync(path.join(workspace, name), text)
write('package.json', '{ "private": true, "workspaces": ["packages/*"] }')
write('packages/greeter/package.json', '{ "name": "greeter", "version": "1.0.0" }')
write('packages/greeter/index.js', "module.exports = 'hello from a member'")
write('app.js', "console.log(require('greeter'))")

const mounts = [{ hostPath: workspace, guestTag: 'src', at: '/work' }]
/** Runs a command where the sources are. */
async function run(/** @type {import('@supermachine/core').Vm | import('@supermachine/core').WarmupVm} */ vm, /** @type {string} */ command) {
  const argv = ['sh', '-c', command]
  const out = await vm.exec({ argv, cwd: '/work', timeoutMs: 600_000 })
  if (out.exitCode !== 0) throw new Error(`${command}: ${out.stderr}`)
  return out.stdout.toString()
}

const image = await Image.build({
  ref: process.env.TEST_IMAGE ?? 'node:20-alpine',
  memoryMib: 512,
  mounts,
  volumes: [{ name: 'modules', sizeMib: 256, mountPoint: '/work/node_modules' }],
  // Once, while the image is baked: what is installed is in the snapshot.
  warmup: async (vm) => {
    await run(vm, process.env.TEST_INSTALL ?? 'npm install')
  }
})

// Every machine has it, and the sources as they are by now.
write('packages/greeter/index.js', "module.exports = 'hello again'")
const vm = await image.start({ mounts })
console.log(await run(vm, process.env.TEST_RUN ?? 'node app.js'))
await vm.release()
fs.rmSync(workspace, { recursive: true })
