// One command for each line of the standard input; what it took, in milliseconds, is a
// line of the standard output. Arguments: the package's index.mjs, and a snapshot.
import readline from 'node:readline'

const [, , index, snapshot] = process.argv
const { Image } = await import(index)
const vm = await (await Image.fromSnapshot(snapshot)).start()
for await (const _ of readline.createInterface({ input: process.stdin })) {
  const begun = process.hrtime.bigint()
  const out = await vm.exec({ argv: ['true'] })
  const took = process.hrtime.bigint() - begun
  if (out.exitCode !== 0) throw new Error(`true ended with ${out.exitCode}`)
  console.log(Number(took) / 1e6)
}
await vm.release()
