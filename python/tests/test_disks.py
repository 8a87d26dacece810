"""Changes of copy-on-write mounts, and volumes, with real guests; set up as
``test_machines.py`` says."""

import os
import pathlib
import tarfile
import tempfile
import unittest

import supermachine
from supermachine import (
    BusyError,
    ConfigurationError,
    HostError,
    Image,
    Mount,
    OwnerMap,
    Tmpfs,
    Volume,
    VolumeStore,
    aio,
)

REF = os.environ["TEST_IMAGE"]
SCRATCH = tempfile.TemporaryDirectory(prefix="supermachine-disks-")
PLACE = pathlib.Path(SCRATCH.name)
SNAPSHOTS = PLACE / "snapshots"


def tearDownModule() -> None:
    SCRATCH.cleanup()


def sh(vm: supermachine.Vm, script: str) -> str:
    out = vm.exec(["sh", "-c", script])
    assert out.stderr == b"", out.stderr
    return out.stdout.decode().strip()


class Disks(unittest.TestCase):
    def test_chosen_changes_of_a_mount_become_the_hosts(self) -> None:
        place = PLACE / "work"
        (place / "sub").mkdir(parents=True)
        for name in ["edited", "removed", "sub/file"]:
            (place / name).write_text("host\n")
        mount = Mount(place, "work", copy_on_write=True, at="/work")
        image = Image.build(REF, snapshots_dir=SNAPSHOTS, mounts=[mount])
        with image.start(mounts=[mount]) as vm:
            sh(vm, "cd /work; echo guest >> edited; rm removed; echo guest > sub/file; : > $(printf 'odd\\377')")
            changes = vm.mount_changes("work")
            odd = os.fsdecode(b"odd\xff")
            self.assertEqual(
                [(change.kind, change.file, change.path) for change in changes],
                [
                    ("changed", "file", "edited"),
                    ("added", "file", odd),
                    ("deleted", None, "removed"),
                    ("changed", "file", "sub/file"),
                ],
            )
            self.assertEqual(vm.apply_changes("work", []), [])
            chosen = [change for change in changes if change.path in ("edited", odd)]
            self.assertEqual(vm.apply_changes("work", chosen), chosen)
            self.assertEqual((place / "edited").read_text(), "host\nguest\n")
            self.assertTrue(os.path.exists(os.fsencode(place) + b"/odd\xff"))
            self.assertEqual((place / "sub/file").read_text(), "host\n")
            archive = PLACE / "changes.tar"
            self.assertGreater(vm.export_changes("work", archive).entries, 0)
            with tarfile.open(archive) as tar:
                # What the host has now is no change any more.
                names = [".wh.removed", "sub", "sub/file"]
                self.assertEqual(sorted(tar.getnames()), names)
            # What was deleted is there again, and what was added is not new any more.
            sh(vm, "echo back > /work/removed")
            left = vm.apply_changes("work", changes)
            self.assertEqual([change.path for change in left], ["sub/file"])
            self.assertEqual((place / "removed").read_text(), "host\n")
            with self.assertRaises(ConfigurationError):
                vm.mount_changes("none")
            with self.assertRaises(HostError):
                vm.export_changes("work", PLACE / "none/x.tar")

    def test_volumes_are_made_grown_copied_and_removed(self) -> None:
        store = VolumeStore.at(PLACE / "volumes")
        self.assertEqual(store.list(), [])
        store.create("data", 64)
        made = store.inspect("data")
        self.assertEqual((made.name, made.size, made.in_use_by), ("data", 64 << 20, None))
        volume = Volume("data", "/data", size_mib=64)
        image = Image.build(REF, snapshots_dir=SNAPSHOTS, volume_slots=1)
        with image.start(volumes=[volume], volumes_dir=PLACE / "volumes") as vm:
            vm.grow_volume("data", 200)
            self.assertGreater(int(sh(vm, "df -m /data | awk 'NR == 2 { print $2 }'")), 150)
            sh(vm, "echo kept > /data/file; sync")
            self.assertIn(f"process {os.getpid()}", store.inspect("data").in_use_by or "")
            with self.assertRaises(BusyError) as caught:
                store.remove("data")
            self.assertEqual(caught.exception.code, "volume-in-use")
        store.grow("data", 256)
        store.export("data", PLACE / "data.image")
        store.import_("copy", PLACE / "data.image")
        self.assertEqual([(one.name, one.size) for one in store.list()], [("copy", 256 << 20), ("data", 256 << 20)])
        copy = Volume("copy", "/data", size_mib=64)
        with image.start(volumes=[copy], volumes_dir=PLACE / "volumes") as vm:
            self.assertEqual(sh(vm, "cat /data/file"), "kept")
        store.remove("data")
        self.assertEqual(store.prune(all=True), ["copy"])
        for call in [
            lambda: store.inspect("data"),
            lambda: store.create("x", 0),
            lambda: store.create("../x", 64),
        ]:
            with self.assertRaises(ConfigurationError):
                call()
        self.assertNotIn("copy", [one.name for one in VolumeStore.of_user().list()])

    def test_what_a_warm_up_leaves_on_a_volume_is_in_every_machine(self) -> None:
        volume = Volume("modules", "/work/modules", size_mib=64)

        def warmup(vm: supermachine.Vm) -> None:
            sh(vm, "echo baked > /work/modules/file")

        image = Image.build(REF, warmup=warmup, snapshots_dir=SNAPSHOTS, volumes=[volume])
        with image.start() as first, image.start() as second:
            sh(first, "echo first > /work/modules/file; sync")
            self.assertEqual(sh(second, "cat /work/modules/file"), "baked")
            again = first.snapshot(PLACE / "again")
            with again.start() as third:
                self.assertEqual(sh(third, "cat /work/modules/file"), "first")
        with image.pool(min=1, max=1) as pool:
            for _ in range(3):
                with pool.acquire() as vm:
                    self.assertEqual(sh(vm, "cat /work/modules/file"), "baked")
                    sh(vm, "rm /work/modules/file; sync")
        # It is the image's, and not one that outlives a machine.
        with self.assertRaises(ConfigurationError) as caught:
            image.start(volumes=[volume])
        self.assertEqual(caught.exception.code, "volume")

    def test_mounts_have_owners_and_windows_and_memory_has_limits(self) -> None:
        place = PLACE / "owned"
        place.mkdir()
        (place / "file").write_bytes(b"x" * (4 << 20))
        (PLACE / "one").write_text("one file")
        me = [(0, os.getuid(), 1)], [(0, os.getgid(), 1)]
        mounts = [
            Mount(place, "owned", at="/owned", owner=(5, 6), dax="always", dax_window_mib=16),
            Mount(place, "mapped", at="/mapped", owner_map=OwnerMap(*me)),
            Mount(PLACE / "one", "one", file=True, read_only=True, at="/etc/one"),
        ]
        tmpfs = [Tmpfs("/scratch", size_mib=8, mode=0o700, owner=(1, 2), executable=True)]
        image = Image.build(REF, snapshots_dir=SNAPSHOTS, mounts=mounts, tmpfs=tmpfs)
        with image.start(mounts=mounts, tmpfs=tmpfs) as vm:
            self.assertEqual(sh(vm, "stat -c '%u %g' /owned/file /mapped/file"), "5 6\n0 0")
            self.assertEqual(sh(vm, "wc -c < /owned/file; grep -c '800000000-800ffffff : virtio' /proc/iomem"), "4194304\n1")
            self.assertEqual(sh(vm, "cat /etc/one"), "one file")
            self.assertEqual(sh(vm, "stat -c '%a %u %g' /scratch"), "700 1 2")
        for wrong in [
            Mount(place, "x", owner=(0, -1)),
            Mount(place, "x", dax="never"),
            Mount(place, "x", dax_window_mib=2),
            Mount(place, "x", owner=(0, 0), recorded_owners=True),
        ]:
            with self.assertRaises(ConfigurationError):
                image.start(mounts=[wrong])


class Asyncio(unittest.IsolatedAsyncioTestCase):
    async def test_volumes_are_awaited(self) -> None:
        store = aio.VolumeStore.at(PLACE / "awaited")
        await store.create("one", 16)
        self.assertEqual([one.name for one in await store.list()], ["one"])
        self.assertEqual(await store.prune(all=True), ["one"])


if __name__ == "__main__":
    unittest.main()
