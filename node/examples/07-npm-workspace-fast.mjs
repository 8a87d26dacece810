// Sources live on the host, and what is installed is on a disk of the guest's own, which
// outlives machines: thousands of small files are written where that is fast, and once.
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
const volumes = [{ name: 'example-modules', sizeMib: 256, mountPoint: '/work/node_modules' }]
const image = await Image.build({
  ref: process.env.TEST_IMAGE ?? 'node:20-alpine',
  memoryMib: 512,
  mounts,
  volumes
})

/** Runs a command in a machine of its own. */
async function run(/** @type {string} */ command) {
  const vm = await image.start({ mounts, volumes })
  try {
    const argv = ['sh', '-c', command]
    const out = await vm.exec({ argv, cwd: '/work', timeoutMs: 600_000 })
    if (out.exitCode !== 0) throw new Error(`${command}: ${out.stderr}`)
    return out.stdout.toString()
  } finally {
    await vm.release()
  }
}

await run(process.env.TEST_INSTALL ?? 'npm install')
// Another machine, and the edited source: nothing is installed again.
write('packages/greeter/index.js', "module.exports = 'hello again'")
console.log(await run(process.env.TEST_RUN ?? 'node app.js'))
fs.rmSync(workspace, { recursive: true })
