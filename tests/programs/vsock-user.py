# What any user of a guest can try on the agent's sockets. Arguments: the bytes
# of a request as hex digits, the number of calls to the host's port.
import os, socket, sys

AGENT, REPORT = 1028, 1027
request, calls = bytes.fromhex(sys.argv[1]), int(sys.argv[2])


def vsock():
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.settimeout(20)
    return s


def dial(cid, port, own=None):
    """What the other side says, or that it does not talk."""
    s = vsock()
    try:
        if own:
            s.bind((socket.VMADDR_CID_ANY, own))
        s.connect((cid, port))
        s.sendall(request)
        return s.recv(4096) or "closed"
    except PermissionError:
        return "denied"
    except (ConnectionError, OSError) as error:
        return "closed" if not isinstance(error, TimeoutError) else "hangs"


def say(what, outcomes):
    print(what, " ".join(sorted({str(outcome) for outcome in outcomes})), flush=True)


assert os.getuid() == 1000
say("loopback", [dial(1, AGENT) for _ in range(20)])
say("own id", [dial(3, AGENT) for _ in range(20)])
say("from the agent's port", [dial(cid, AGENT, AGENT) for cid in (1, 3)])
say("reserved ports", [dial(2, REPORT, own) for own in (1, 512, 1023)])
try:
    # Root in a user namespace of its own has no more rights on vsock.
    os.unshare(os.CLONE_NEWUSER)
    say("user namespace", [dial(2, REPORT, 1023)])
except (AttributeError, OSError):
    print("user namespace denied")
say("calls", [dial(2, REPORT) for _ in range(calls)])
