"""Let a program change a directory of the host, and choose what of that is kept."""

import os
import pathlib
import tempfile

from supermachine import Image, Mount

with tempfile.TemporaryDirectory() as name:
    project = pathlib.Path(name)
    (project / "answer.txt").write_text("41\n")
    mounts = [Mount(project, "project", copy_on_write=True, at="/work")]
    image = Image.build(os.environ.get("TEST_IMAGE", "alpine:latest"), mounts=mounts)
    with image.start(mounts=mounts) as vm:
        out = vm.exec(["sh", "-c", "echo 42 > answer.txt; echo rubbish > notes"], cwd="/work")
        assert out.exit_code == 0, out.stderr.decode()
        changes = vm.mount_changes("project")
        print([(change.kind, change.path) for change in changes])
        wanted = [change for change in changes if change.path == "answer.txt"]
        vm.apply_changes("project", wanted)
    print(sorted(path.name for path in project.iterdir()))
    print((project / "answer.txt").read_text())
