"""Asks who listens at the address of a worker. A port that is open may be any program's, or a stopped worker's.

The question is the smallest call of gRPC, over HTTP/2: GetStatus, which a TensorFlow server answers in a thread of its
own with the names of its devices, such as /job:worker/replica:0/task:0/device:CPU:0, also while Python is stuck.
"""

import re
import socket
import struct
import time
from collections import namedtuple
from multiprocessing.pool import ThreadPool

from src.console import escape_control_characters
from src.errors import reason
from utils.cluster.tf_config import host_of, port_of

PROBE_SECONDS = 2  # for an answer
MAX_AT_ONCE = 32
MAX_SHOWN = 60  # characters of the answer of another program

# Whether the expected worker answered; whether another program did; in words what was found.
Answer = namedtuple("Answer", "is_worker is_stranger text")


def probe_all(addresses):
    """Ask several workers at once.

    Args:
        addresses: {"worker 0": "host:2222"}, as read_tf_config returns them; not empty.

    Returns:
        {name: Answer}, after at most a few seconds for each 32 of them.
    """
    pool = ThreadPool(min(len(addresses), MAX_AT_ONCE))
    try:
        return dict(zip(addresses, pool.starmap(probe, addresses.items())))
    finally:
        pool.terminate()


def probe(name, address):
    """The Answer of the worker of that name, or of whoever listens at its address."""
    try:
        received = ask(address)
    except OSError as error:
        return Answer(False, False, f"cannot be reached ({reason(error)})")
    found = re.search(rb"/job:(\w+)/replica:0/task:(\d+)/device:", received)
    if found:
        other = b" ".join(found.groups()).decode()
        is_worker = other == name
        return Answer(is_worker, not is_worker, "answers" if is_worker else f"{other} of a cluster listens there")
    if not received:
        return Answer(False, False, "something listens there, but does not answer")
    is_http2 = received[3:4] == b"\4"  # each side begins with a frame of type 4, its settings
    line = received.splitlines()[0][:MAX_SHOWN].decode("latin-1")
    what = "over HTTP/2, but not as TensorFlow does" if is_http2 else escape_control_characters(repr(line))
    return Answer(False, True, f"another program listens there, which answers {what}")


def ask(address):
    """What the listener sends within PROBE_SECONDS, up to the name of a device; b"" if it sends nothing.

    Raises:
        OSError: it cannot be reached.
    """
    end, received = time.monotonic() + PROBE_SECONDS, b""
    with socket.create_connection((host_of(address), port_of(address)), PROBE_SECONDS) as connection:
        try:
            connection.sendall(status_request())
            while b"/device:" not in received and time.monotonic() < end:
                connection.settimeout(max(0.01, end - time.monotonic()))
                part = connection.recv(2**16)
                if not part:
                    break
                received += part
        except OSError:  # time is up, or the listener hung up
            pass
    return received


def status_request():
    """The bytes of a call of GetStatus without arguments."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/tensorflow.WorkerService/GetStatus",
        ":authority": "worker",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    literal = b"".join(b"\0" + sized(name) + sized(value) for name, value in headers.items())
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return preface + frame(4, 0, 0, b"") + frame(1, 4, 1, literal) + frame(0, 1, 1, bytes(5))


def sized(text):
    """A string in a header, of at most 126 bytes, so that one byte holds its length."""
    return bytes([len(text)]) + text.encode()


def frame(kind, flags, stream, payload):
    """A frame of HTTP/2. Kinds: 0 data, 1 headers, 4 settings; flags: 1 the stream ends, 4 the headers end."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
