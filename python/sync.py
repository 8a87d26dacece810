"""Writes supermachine/_sync.py: what aio.py has, without asyncio.

Run by ``cargo xtask python sync``; the tests fail where the file differs.
"""

import pathlib
import re

HERE = pathlib.Path(__file__).parent / "supermachine"

HEAD = '''"""Images, pools and machines for threads. Made of aio.py by sync.py: do not edit.

Other threads run while one waits here, and Ctrl-C interrupts it: the call is
cancelled then, and a command is killed with its descendants.
"""
'''

WORDS = [
    (r"\basync def\b", "def"),
    (r"\bawait awaited\(", "wait("),
    (r"\bawait ", ""),
    (r"\bawaited\b", "wait"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAwaitable, ", ""),
    (r"Optional\[Awaitable\[None\]\]\]", "None]"),
    (r"__aiter__", "__iter__"),
    (r"__anext__", "__next__"),
    (r"StopAsyncIteration", "StopIteration"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"\bon_loop\b", "on_thread"),
]


def made(source: str) -> str:
    """The module for threads, of that for asyncio."""
    _, _, rest = source.partition('"""\n\nfrom __future__')
    text = HEAD + "\nfrom __future__" + rest
    for pattern, word in WORDS:
        text = re.sub(pattern, word, text)
    return text


if __name__ == "__main__":
    (HERE / "_sync.py").write_text(made((HERE / "aio.py").read_text()))
