// Changes of copy-on-write mounts, and volumes, with real guests.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { BusyError, ConfigurationError, HostError, Image, VolumeStore } from '../index.mjs'

const ref = process.env.TEST_IMAGE
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'supermachine-disks-'))
const snapshotsDir = path.join(scratch, 'snapshots')
after(() => fs.rmSync(scratch, { recursive: true, force: true }))

const sh = async (vm, script) => {
  const out = await vm.exec({ argv: ['sh', '-c', script] })
  assert.equal(out.stderr.toString(), '')
  return out.stdout.toString().trim()
}
const told = (changes) => changes.map(({ kind, file, path }) => `${kind} ${file} ${path}`)

describe('changes of a copy-on-write mount', () => {
  const dir = path.join(scratch, 'work')
  const read = (name) => fs.readFileSync(path.join(dir, name), 'utf8')
  let vm
  before(async () => {
    fs.mkdirSync(path.join(dir, 'sub'), { recursive: true })
    for (const name of ['kept', 'edited', 'removed', 'sub/file']) fs.writeFileSync(path.join(dir, name), 'host\n')
    const mounts = [{ hostPath: dir, guestTag: 'work', copyOnWrite: true, at: '/work' }]
    const image = await Image.build({ ref, snapshotsDir, mounts })
    vm = await image.start({ mounts })
    assert.deepEqual(await vm.mountChanges('work'), [])
    await sh(vm, 'cd /work; echo guest >> edited; rm removed; mkdir new; echo guest > new/file; echo guest > sub/file')
  })
  after(() => vm?.release())

  test('are listed, and what is chosen of them becomes the host’s', async () => {
    const changes = await vm.mountChanges('work')
    assert.deepEqual(told(changes), [
      'changed file edited', 'added directory new', 'added file new/file',
      'deleted undefined removed', 'changed file sub/file'
    ])
    assert.equal(changes[0].size, 'host\nguest\n'.length)
    assert.equal(read('edited'), 'host\n')
    assert.deepEqual(await vm.applyChanges('work', []), [])
    const chosen = changes.filter((change) => !change.path.startsWith('sub') && change.kind !== 'deleted')
    assert.deepEqual(told(await vm.applyChanges('work', chosen)), told(chosen))
    assert.deepEqual([read('edited'), read('new/file')], ['host\nguest\n', 'guest\n'])
    assert.deepEqual([read('removed'), read('sub/file')], ['host\n', 'host\n'])
  })

  test('that have become something else since they were looked at are left out', async () => {
    const all = await vm.mountChanges('work')
    const looked = all.filter(({ path }) => ['removed', 'sub/file'].includes(path))
    assert.deepEqual(told(looked), ['deleted undefined removed', 'changed file sub/file'])
    await sh(vm, 'cd /work; echo back > removed; rm sub/file; ln -s /etc/passwd sub/file')
    assert.deepEqual(await vm.applyChanges('work', looked), [])
    assert.deepEqual([read('removed'), read('sub/file')], ['host\n', 'host\n'])
  })

  test('are exported as an archive, whole or not at all', async () => {
    const archive = path.join(scratch, 'changes.tar')
    fs.writeFileSync(archive, 'old')
    await sh(vm, 'cd /work; rm removed sub/file')
    const copied = await vm.exportChanges('work', archive)
    assert.ok(copied.entries >= 2, `${copied.entries}`)
    const tar = fs.readFileSync(archive)
    assert.ok(tar.length % 512 === 0 && tar.includes('.wh.removed') && tar.includes('sub/.wh.file'))
    const changes = await vm.mountChanges('work')
    await vm.exportChanges('work', archive, changes.filter(({ path }) => path === 'removed'))
    assert.ok(!fs.readFileSync(archive).includes('sub/.wh.file'))
    await assert.rejects(vm.exportChanges('work', path.join(scratch, 'none/x.tar')), HostError)
    await assert.rejects(vm.exportChanges('none', archive), ConfigurationError)
    assert.ok(fs.readFileSync(archive).includes('.wh.removed'))
    assert.deepEqual(fs.readdirSync(scratch).filter((name) => name.startsWith('.')), [])
    // All, by default.
    assert.deepEqual(told(await vm.applyChanges('work')), told(changes))
    assert.deepEqual(fs.readdirSync(dir).sort(), ['edited', 'kept', 'new', 'sub'])
    assert.deepEqual(fs.readdirSync(path.join(dir, 'sub')), [])
  })

  test('of no mount, or that are none, are refused', async () => {
    await assert.rejects(vm.mountChanges('none'), { name: 'ConfigurationError', code: 'mount' })
    await assert.rejects(vm.mountChanges(7), { name: 'ConfigurationError', code: 'invalid-argument' })
    for (const changes of ['kept', [7], [{ kind: 'added' }]]) {
      await assert.rejects(vm.applyChanges('work', changes), ConfigurationError)
    }
  })
})

test('volumes are made, grown, copied and removed, also while a machine has them', async () => {
  const dir = path.join(scratch, 'volumes')
  const store = VolumeStore.at(dir)
  assert.ok(store instanceof VolumeStore)
  assert.deepEqual(await store.list(), [])
  await store.create('data', 64)
  await assert.rejects(store.create('data', 64), { name: 'ConfigurationError', code: 'volume' })
  const made = await store.inspect('data')
  assert.deepEqual([made.name, made.size, made.inUseBy], ['data', 64 << 20, undefined])
  assert.ok(made.diskBytes < made.size && Math.abs(Date.now() - made.changedMs) < 3_600_000)

  const volumes = [{ name: 'data', sizeMib: 64, mountPoint: '/data' }]
  const image = await Image.build({ ref, snapshotsDir, volumeSlots: 1 })
  const vm = await image.start({ volumes, volumesDir: dir })
  const mib = async () => Number(await sh(vm, "df -m /data | awk 'NR == 2 { print $2 }'"))
  assert.ok((await mib()) < 64)
  await vm.growVolume('data', 200)
  assert.ok((await mib()) > 150)
  await assert.rejects(vm.growVolume('none', 300), { name: 'ConfigurationError', code: 'volume' })
  await sh(vm, 'echo kept > /data/file; sync')
  assert.match((await store.inspect('data')).inUseBy, new RegExp(`process ${process.pid}`))
  for (const call of [
    () => store.remove('data'),
    () => store.grow('data', 300),
    () => store.export('data', path.join(scratch, 'x'))
  ]) {
    await assert.rejects(call(), (error) => error instanceof BusyError && error.code === 'volume-in-use')
  }
  await vm.release()

  await store.grow('data', 256)
  const file = path.join(scratch, 'data.image')
  await store.export('data', file)
  await store.import('copy', file)
  assert.deepEqual((await store.list()).map(({ name, size }) => [name, size]), [
    ['copy', 256 << 20], ['data', 256 << 20]
  ])
  const other = await image.start({ volumes: [{ ...volumes[0], name: 'copy' }], volumesDir: dir })
  assert.equal(await sh(other, 'cat /data/file'), 'kept')
  await other.release()

  await store.remove('data')
  assert.deepEqual(await store.prune(true), ['copy'])
  await assert.rejects(store.inspect('data'), ConfigurationError)
  assert.throws(() => VolumeStore.at(7), ConfigurationError)
  assert.throws(() => new VolumeStore(), TypeError)
  await assert.rejects(store.create('x', NaN), { code: 'invalid-argument' })
  await assert.rejects(store.create('../x', 64), { code: 'volume' })
  await assert.rejects(store.import('x', path.join(scratch, 'no such file')), HostError)
  // The user's own, which `cargo xtask test node` says where to have.
  assert.deepEqual((await VolumeStore.ofUser().list()).filter(({ name }) => name === 'copy'), [])
})

test('what a warm-up leaves on a volume is in every machine, which writes for itself', async () => {
  const volumes = [{ name: 'modules', sizeMib: 64, mountPoint: '/work/node_modules' }]
  let warmedUp = 0
  const build = () => Image.build({
    ref,
    snapshotsDir,
    volumes,
    warmup: async (vm) => {
      warmedUp += 1
      await sh(vm, 'cd /work/node_modules; mkdir greeter; echo hello > greeter/index.js')
    }
  })
  const image = await build()
  assert.equal((await build()).snapshotPath, image.snapshotPath)
  assert.equal(warmedUp, 1)
  const look = 'cat /work/node_modules/greeter/index.js; ls /work/node_modules'
  const baked = 'hello\ngreeter\nlost+found'
  const [first, second] = [await image.start(), await image.start()]
  await sh(first, 'echo first > /work/node_modules/greeter/index.js; sync')
  assert.equal(await sh(second, look), baked)
  // A copy of a copy begins with what that has.
  const again = await first.snapshot(path.join(scratch, 'again'))
  const third = await again.start()
  assert.equal(await sh(third, look), baked.replace('hello', 'first'))
  for (const vm of [first, second, third]) await vm.release()
  const pool = await image.pool({ min: 1, max: 1 })
  for (let round = 0; round < 3; round += 1) {
    const vm = await pool.acquire()
    assert.equal(await sh(vm, look), baked)
    await sh(vm, 'rm -r /work/node_modules/greeter; sync')
    await vm.release()
  }
  await pool.shutdown()
  // It is the image's, and not one that outlives a machine.
  await assert.rejects(image.start({ volumes }), { name: 'ConfigurationError', code: 'volume' })
  await assert.rejects(Image.build({ ref, snapshotsDir, volumeSlots: -1 }), { code: 'invalid-argument' })
})

test('a mount has the owners, the files and the window that it is given, and memory its limits', async () => {
  const dir = path.join(scratch, 'owned')
  fs.mkdirSync(dir)
  fs.writeFileSync(path.join(dir, 'large'), Buffer.alloc(4 << 20, 'x'))
  fs.writeFileSync(path.join(scratch, 'one'), 'one file')
  const mounts = [
    { hostPath: dir, guestTag: 'owned', at: '/owned', owner: { uid: 5, gid: 6 }, dax: 'always', daxWindowMib: 16 },
    { hostPath: dir, guestTag: 'kept', at: '/kept', recordedOwners: true },
    { hostPath: path.join(scratch, 'one'), guestTag: 'one', file: true, readOnly: true, at: '/etc/one' }
  ]
  const tmpfs = [{ mountPoint: '/scratch', sizeMib: 8, mode: 0o700, owner: { uid: 1, gid: 2 }, executable: true }]
  const image = await Image.build({ ref, snapshotsDir, mounts, tmpfs })
  const more = [...tmpfs, { mountPoint: '/more', sizeMib: 4 }]
  const vm = await image.start({ mounts, tmpfs: more })
  assert.equal(await sh(vm, 'stat -c "%u %g" /owned/large'), '5 6')
  assert.equal(await sh(vm, "md5sum < /owned/large; grep -c '800000000-800ffffff : virtio' /proc/iomem"), '44981362d3ba9b5bacaf017c2f29d355  -\n1')
  assert.equal(await sh(vm, 'touch /kept/file; chown 7:8 /kept/file; stat -c "%u %g" /kept/file'), '7 8')
  assert.equal(fs.statSync(path.join(dir, 'file')).uid, process.getuid())
  assert.equal(await sh(vm, 'cat /etc/one; ! echo x 2> /dev/null > /etc/one'), 'one file')
  assert.equal(await sh(vm, 'stat -c "%a %u %g" /scratch /more'), '700 1 2\n1777 0 0')
  assert.equal(await sh(vm, "df -k /scratch /more | awk 'NR > 1 { print $2 }'"), '8192\n4096')
  assert.equal(await sh(vm, 'cp /bin/busybox /scratch; /scratch/busybox echo ran'), 'ran')
  await vm.release()
  for (const wrong of [{ owner: { uid: -1, gid: 0 } }, { dax: 'never' }, { daxWindowMib: 2 }, { owner: { uid: 1, gid: 1 }, recordedOwners: true }]) {
    const mount = { hostPath: dir, guestTag: 'x', ...wrong }
    await assert.rejects(image.start({ mounts: [mount] }), { code: 'invalid-argument' })
  }
})
