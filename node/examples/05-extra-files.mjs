// Files of the host as a part of the image: another content is another bake.
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { Image } from '@supermachine/core'

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'extra-'))
const hostPath = path.join(dir, 'app.toml')
fs.writeFileSync(hostPath, 'answer = 42\n')
const image = await Image.build({
  ref: process.env.TEST_IMAGE ?? 'alpine:latest',
  extraFiles: [{ hostPath, guestPath: '/etc/app.toml', mode: 0o600 }]
})
// It is in the snapshot: the host's is needed no more.
fs.rmSync(dir, { recursive: true })
const vm = await image.start()
try {
  const { stdout } = await vm.exec({ argv: ['cat', '/etc/app.toml'] })
  console.log(stdout.toString())
} finally {
  await vm.release()
}
