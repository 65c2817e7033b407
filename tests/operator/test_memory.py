"""What is there once, and where libc puts it."""

from __future__ import annotations

import ctypes
import pickle
import subprocess
import sys

import pytest

from yett_policy.cluster import Pod, shared

_READ_BUFFER = """
import ctypes, sys
from yett_operator import memory

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.mallinfo2.restype = Info
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "set up":
    memory.set_up()
libc.free(libc.malloc(4 << 20))  # glibc takes what is smaller than this from the heap from now on
before = libc.mallinfo2().hblks
libc.malloc(256 << 10)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="libc is not glibc 2.33 or later")
@pytest.mark.parametrize(("how", "apart"), [("set up", 1), ("as it is", 0)])
def test_a_tls_read_buffer_has_pages_of_its_own(how: str, apart: int) -> None:
    found = subprocess.run([sys.executable, "-c", _READ_BUFFER, how], capture_output=True, check=True)
    assert int(found.stdout) == apart


def test_a_workload_that_comes_in_two_batches_is_one_object() -> None:
    workload = Pod("default", "p", {"app": "a"}).workload
    first, second = (shared(pickle.loads(pickle.dumps(workload))) for _ in range(2))
    assert first == workload
    assert first is second
