"""The kernel edge: libbpf's objects as Python objects, its return codes as exceptions.

One file per libbpf object; everything above sees ints, bytes and dataclasses.  The only
importer of `yett_loader._libbpf`.
"""

from yett_loader.kernel.link import Hook, Link, LinkInfo
from yett_loader.kernel.map import NO_PREALLOC, Map, MapSpec, MapType
from yett_loader.kernel.object import Object, ObjectMap
from yett_loader.kernel.program import Program, ProgramInfo, RunResult
from yett_loader.kernel.ringbuf import RingBuffer

__all__ = [
    "NO_PREALLOC",
    "Hook",
    "Link",
    "LinkInfo",
    "Map",
    "MapSpec",
    "MapType",
    "Object",
    "ObjectMap",
    "Program",
    "ProgramInfo",
    "RingBuffer",
    "RunResult",
]
