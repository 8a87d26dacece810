// A directory of the host in the guest: both see what the other writes.
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { Image } from '@supermachine/core'

const workspace = fs.mkdtempSync(path.join(os.tmpdir(), 'workspace-'))
fs.writeFileSync(path.join(workspace, 'question'), 'what is 6 times 7?')
/** @type {import('@supermachine/core').MountSpec[]} */
const mounts = [{ hostPath: workspace, guestTag: 'workspace', symlinks: 'opaque', at: '/work' }]
const image = await Image.build({ ref: process.env.TEST_IMAGE ?? 'alpine:latest', mounts })
const vm = await image.start({ mounts })
try {
  const out = await vm.exec({ argv: ['sh', '-c', 'cat /work/question; echo 42 > /work/answer'] })
  console.log(out.stdout.toString(), fs.readFileSync(path.join(workspace, 'answer'), 'utf8'))
} finally {
  await vm.release()
  fs.rmSync(workspace, { recursive: true })
}
