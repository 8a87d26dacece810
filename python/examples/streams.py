"""Talk to a program while it runs."""

import os

from supermachine import Image

image = Image.build(os.environ.get("TEST_IMAGE", "alpine:latest"))
with image.start() as vm:
    child = vm.spawn(["sh"])
    child.write("echo one\n")
    print("first:", child.read().decode())
    child.write("echo two; echo three\nexit 7\n")
    for piece in child.stdout():
        print(piece.decode(), end="")
    print("exit code", child.wait().exit_code)
