// Talk to a program while it runs.
import { Image } from '@supermachine/core'

const image = await Image.build({ ref: process.env.TEST_IMAGE ?? 'alpine:latest' })
const vm = await image.start()
const child = await vm.spawn({ argv: ['sh'] })
await child.writeStdin('echo one\n')
console.log('first:', (await child.readStdout()).toString())
await child.writeStdin('echo two; echo three\nexit 7\n')
for await (const chunk of child.stdout) process.stdout.write(chunk)
console.log('exit code', (await child.wait()).exitCode)
await vm.release()
