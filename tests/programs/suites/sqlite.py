"""Databases whose writers are killed in the middle of transactions: what they were told to
be written is there, whole, and nothing that was not is there in part. The argument is how
often they are killed."""

import hashlib
import os
import random
import signal
import sqlite3
import sys
import time

PLACE = "/share/sqlite"
ROUNDS = int(sys.argv[1])
WRITERS = 2


def connect(mode):
    database = sqlite3.connect(f"{PLACE}/{mode}.db", timeout=120, isolation_level=None)
    database.execute(f"pragma journal_mode={mode}")
    database.execute("pragma synchronous=full")
    # Small, so that a transaction is partly in the file before its end.
    database.execute("pragma cache_size=4")
    return database


def write(mode, writer, pipe):
    """Transactions of several rows without end, each said when it is done."""
    database = connect(mode)
    chance = random.Random(os.getpid())
    while True:
        database.execute("begin immediate")
        last = database.execute("select number from last where writer = ?", (writer,))
        number = last.fetchone()[0] + 1
        for row in range(chance.randrange(1, 8)):
            body = chance.randbytes(chance.randrange(10, 20_000))
            digest = hashlib.sha256(body).hexdigest()
            values = (writer, number, row, body, digest)
            database.execute("insert into parts values (?, ?, ?, ?, ?)", values)
        database.execute("update last set number = ?, parts = parts + ? where writer = ?", (number, row + 1, writer))
        # Pages that were there before change as well.
        database.execute("update parts set body = body where writer = ? and number = ?", (writer, number // 2))
        database.execute("commit")
        os.write(pipe, f"{number}\n".encode())


def start(mode, writer):
    out, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write(mode, writer, pipe)
        except BaseException as error:
            os.write(pipe, f"{error!r}\n".encode())
        os._exit(1)
    os.close(pipe)
    return child, os.fdopen(out)


def check(mode, acknowledged):
    database = connect(mode)
    said = [row[0] for row in database.execute("pragma integrity_check")]
    assert said == ["ok"], said[:3]
    for writer, least in enumerate(acknowledged):
        query = "select number, parts from last where writer = ?"
        number, parts = database.execute(query, (writer,)).fetchone()
        assert least <= number <= least + 1, f"{number} of {least} transactions of {writer}"
        query = "select count(*), count(distinct number), coalesce(max(number), 0) from parts where writer = ?"
        found = database.execute(query, (writer,)).fetchone()
        assert found == (parts, number, number), f"{found}, not {parts} parts of {number}"
    for body, digest in database.execute("select body, digest from parts"):
        assert hashlib.sha256(body).hexdigest() == digest, "other bytes"
    database.close()


def crash(mode):
    database = connect(mode)
    got = database.execute("pragma journal_mode").fetchone()[0]
    assert got == mode, f"the journal is {got}"
    database.execute("create table last (writer, number, parts)")
    database.execute("create table parts (writer, number, row, body, digest, primary key (writer, number, row))")
    for writer in range(WRITERS):
        database.execute("insert into last values (?, 0, 0)", (writer,))
    database.close()
    acknowledged = [0] * WRITERS
    left = 0
    for _ in range(ROUNDS):
        children = [start(mode, writer) for writer in range(WRITERS)]
        # None of them is killed before any has come to write.
        first = children[0][1].readline()
        time.sleep(random.random() * 0.3)
        for child, _ in children:
            os.kill(child, signal.SIGKILL)
        for child, _ in children:
            os.waitpid(child, 0)
        for writer, (_, out) in enumerate(children):
            lines = ([first] if writer == 0 else []) + out.readlines()
            for line in lines:
                acknowledged[writer] = int(line)
        journal = f"{PLACE}/{mode}.db-{'wal' if mode == 'wal' else 'journal'}"
        left += os.path.exists(journal) and os.path.getsize(journal) > 0
        check(mode, acknowledged)
    # Of a few rounds all may have ended between transactions.
    assert left > 0 or ROUNDS < 10, "no transaction was cut off"
    print(f"# {mode}: {sum(acknowledged)} transactions, {left} of {ROUNDS} left a journal", flush=True)


os.makedirs(PLACE)
for mode in ["delete", "truncate", "persist", "wal"]:
    try:
        crash(mode)
        print(f"passed {mode}", flush=True)
    except Exception as error:
        print(f"failed {mode}: {error!r}", flush=True)
print("end")
