// What the declarations must accept, and what not: compiled, never run.
import { EndedError, Image, SupermachineError, VolumeStore } from '@supermachine/core'
import type {
  Copied, ExecInfo, ExecOutput, FileInfo, MountChange, NetworkFlow, Pool, PoolStats, Vm, VmStats,
  VolumeInfo
} from '@supermachine/core'

const image: Image = await Image.build({
  ref: 'python:slim',
  memoryMib: 512,
  pullPolicy: 'missing',
  warmupTag: 'v1',
  warmup: async (vm) => {
    await vm.exec({ argv: ['python3', '-c', 'import json'], timeoutMs: 60_000 })
  },
  mounts: [{ hostPath: '/tmp', guestTag: 'src', symlinks: 'opaque' }]
})
const pool: Pool = await image.pool({ min: 0, max: 8, restoreOnRelease: true })
const stats: PoolStats = pool.stats()
const idle: number = stats.idle

async function task(code: string): Promise<ExecOutput> {
  await using vm: Vm = await pool.acquire({ signal: AbortSignal.timeout(1_000) })
  return await vm.exec({
    argv: ['python3', '/tmp/task.py'],
    stageFiles: { '/tmp/task.py': Buffer.from(code) },
    chain: ['true'],
    signal: new AbortController().signal
  })
}
const out = await task(`print(${idle})`)
const text: string = out.stdout.toString() + out.exitCode.toFixed()

const vm = await image.start({ network: { allow: ['*.example.com'] } })
const child = await vm.spawn({ argv: [text], tty: true, winsize: { cols: 80, rows: 25 } })
for await (const chunk of child.stdout) chunk.readUInt8(0)
const stream: ReadableStream<Uint8Array> = child.stderr.stream()
await child.stdin().close()
const durable: string | undefined | null = child.id
if (durable) for await (const _ of (await vm.attach(durable, { latest: true })).stdout) break
const execs: ExecInfo[] = await vm.execs()
const running: ExecInfo[] = execs.filter((info) => info.state === 'running')
const files: FileInfo[] = await vm.readDir('/')
const kind: 'file' | 'directory' | string = files[0].kind
try {
  await vm.writeFile(kind, await vm.readFile('/etc/passwd'))
} catch (error) {
  if (error instanceof EndedError && error.retryable) throw new SupermachineError(error.code)
}

const changes: MountChange[] = await vm.mountChanges('src')
const links = changes.filter((change) => change.file === 'symlink' && change.kind !== 'deleted')
const applied: MountChange[] = await vm.applyChanges('src', links)
const copied: Copied = await vm.exportChanges('src', `/tmp/${applied.length}.tar`)
const store: VolumeStore = copied.entries ? VolumeStore.ofUser() : VolumeStore.at('/tmp/volumes')
await store.create('data', 64)
await vm.growVolume('data', 128)
const info: VolumeInfo = await store.inspect('data')
await store.export(info.name, info.inUseBy ?? info.path)
await store.import('copy', '/tmp/image')
await image.start({ volumes: [{ name: 'copy', mountPoint: '/data' }], volumesDir: '/tmp/volumes' })

const signal = AbortSignal.timeout(1_000)
for await (const event of await vm.events({ signal })) {
  if (event.event === 'listening') await vm.exposeUnix('/tmp/socket', event.port, { signal })
  // @ts-expect-error: what listens has no reason.
  if (event.event === 'listening') event.reason.trim()
}
const used: VmStats = await vm.stats({ signal })
const flows: NetworkFlow[] = used.network === null ? [] : await vm.networkLog()
const refused = flows.filter((flow) => !flow.allowed && flow.protocol === 'udp')
await using port = await vm.exposeUdp(0, refused[0]?.port ?? 53)
await vm.writeFile(port.localAddr, 'x', { signal })
await vm.copyOut('/srv', '/tmp/srv', { signal })
await vm.mkdir('/srv', null, { signal })
const orderly: boolean = await vm.shutdown(1_000, { signal })

// @ts-expect-error: a signal is one.
await vm.readFile('/x', { signal: 'soon' })
// @ts-expect-error: there is no such change.
await vm.applyChanges('src', [{ path: 'x', kind: 'moved', size: 0 }])
// @ts-expect-error: a volume has a size.
await store.create('data')
// @ts-expect-error: there is no such policy.
await Image.build({ ref: 'x', pullPolicy: 'often' })
// @ts-expect-error: a command has a program.
await vm.exec({ timeoutMs: 1 })
// @ts-expect-error: machines come from images and pools.
new Vm()
export { orderly, running, stream }
