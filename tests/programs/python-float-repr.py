import struct, sys
for line in sys.stdin:
    value = struct.unpack(">d", bytes.fromhex(line.strip()))[0]
    text = repr(value)
    assert struct.pack(">d", float(text)).hex() == line.strip(), text
    print(text)
