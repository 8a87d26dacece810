"""What leaves a guest: datagrams, echo requests, questions, connections, by both
families. Each line that is printed says what went wrong, or all that went well."""

import asyncio
import socket
import struct
import sys

TCP, UDP, UNLISTED = (int(argument) for argument in sys.argv[1:4])
# Those that the host has, too.
FAMILIES = sys.argv[4]
GATEWAYS = {socket.AF_INET: "192.168.127.1", socket.AF_INET6: "fd53:4d00::1"}
FAMILY_WORDS = {socket.AF_INET: "4", socket.AF_INET6: "6"}
NAME = "host.supermachine.internal"
CONNECTIONS = 1000
# A slow host is given time.
PATIENCE = 100


def streams(family, gateway):
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(PATIENCE)
        stream.connect((gateway, TCP))
        stream.sendall(b"half closed")
        stream.shutdown(socket.SHUT_WR)
        got = b""
        while more := stream.recv(1000):
            got += more
        assert got == b"HALF CLOSEDend", got


def datagrams(family, gateway):
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(PATIENCE)
        one.connect((gateway, UDP))
        for message in (b"first", b"", b"x" * 1400):
            one.send(message)
            got = one.recv(2000)
            assert got == message.upper(), got
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(PATIENCE)
        one.connect((gateway, UNLISTED))
        one.send(b"x")
        try:
            got = one.recv(100)
            raise AssertionError(f"answered: {got}")
        except ConnectionRefusedError:
            pass


def echo(family, gateway):
    kind, protocol = {
        socket.AF_INET: (8, socket.IPPROTO_ICMP),
        socket.AF_INET6: (128, socket.IPPROTO_ICMPV6),
    }[family]
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as one:
        one.settimeout(PATIENCE)
        one.sendto(struct.pack("!BBHHH", kind, 0, 0, 0, 7) + b"data", (gateway, 0))
        got = one.recv(100)
        assert got[6:] == b"\0\7data", got


def question(kind):
    out = struct.pack("!HHHHHH", 4711, 0x100, 1, 0, 0, 0)
    for label in NAME.split("."):
        out += bytes([len(label)]) + label.encode()
    return out + b"\0" + struct.pack("!HH", kind, 1)


def names(family, gateway):
    expected = {
        1: socket.inet_pton(socket.AF_INET, GATEWAYS[socket.AF_INET]),
        28: socket.inet_pton(socket.AF_INET6, GATEWAYS[socket.AF_INET6]),
    }
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(PATIENCE)
        one.connect((gateway, 53))
        for kind, address in expected.items():
            one.send(question(kind))
            assert one.recv(600).endswith(address)
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(PATIENCE)
        stream.connect((gateway, 53))
        asked = [question(kind) for kind in expected]
        stream.sendall(b"".join(struct.pack("!H", len(one)) + one for one in asked))
        stream.shutdown(socket.SHUT_WR)
        got = b""
        while more := stream.recv(1000):
            got += more
        for address in expected.values():
            (length,) = struct.unpack("!H", got[:2])
            assert got[2 : 2 + length].endswith(address), got
            got = got[2 + length :]
        assert not got


async def many():
    connecting = asyncio.Semaphore(32)
    opened = [None] * CONNECTIONS

    async def begin(number):
        async with connecting:
            opened[number] = await asyncio.open_connection(NAME, TCP)

    await asyncio.gather(*(begin(number) for number in range(CONNECTIONS)))

    async def talk(number):
        reader, writer = opened[number]
        line = f"number {number}\n".encode()
        writer.write(line)
        got = await reader.readline()
        assert got == line.upper(), got
        writer.close()

    await asyncio.gather(*(talk(number) for number in range(CONNECTIONS)))


for family, gateway in GATEWAYS.items():
    on_host = (streams, datagrams) if FAMILY_WORDS[family] in FAMILIES else ()
    for what in (*on_host, echo, names):
        try:
            what(family, gateway)
        except (OSError, AssertionError) as error:
            print(what.__name__, gateway, repr(error))
asyncio.run(many())
print("done")
