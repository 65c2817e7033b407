"""The structs and numbers of yett_abi.h as Python values; offsets are never spelled here."""

from __future__ import annotations

import hashlib
import sys
from functools import cache

from yett_loader._libbpf import ffi, lib

ABI_VERSION = int(lib.YETT_ABI_VERSION)

HEADER_DIGEST = str(ffi.string(lib.yett_abi_digest).decode())
"""Of the yett_abi.h that the extension was built from (`build.abi_digest()`)."""

PINNED_STRUCTS = (
    "config",
    "endpoint",
    "ipcache_key",
    "ipcache_entry",
    "service_key",
    "service",
    "policy_key",
    "policy_entry",
    "flow_key",
    "flow",
    "event",
    "metric",
    "ruleset",
    "rule_set",
    "alternative",
)
"""What lives in pinned maps: programs of two versions can share them only if these are equal."""


def number(name: str) -> int:
    """A constant of the header by its C name, such as `REASON_COUNT`."""
    return int(getattr(lib, name))


@cache
def enum(name: str) -> dict[int, str]:
    """The members of `enum name`: number -> C name."""
    return dict(ffi.typeof(f"enum {name}").elements)


def size(struct: str) -> int:
    """sizeof(struct ...), bytes."""
    return int(ffi.sizeof(f"struct {struct}"))


@cache
def fields(struct: str) -> tuple[str, ...]:
    """Names of the fields, in order."""
    return tuple(name for name, _ in ffi.typeof(f"struct {struct}").fields)


def pack(struct: str, **values: object) -> bytes:
    """The bytes of a struct; fields that are not given are 0.

    A field out of range is an OverflowError, an unknown one a KeyError.  Byte arrays take bytes.
    """
    item = ffi.new(f"struct {struct} *")
    kinds = _kinds(struct)
    for name, value in values.items():
        if kinds[name] and isinstance(value, bytes):
            buffer = ffi.buffer(ffi.addressof(item[0], name))
            if len(value) > len(buffer):
                raise OverflowError(f"{struct}.{name} holds {len(buffer)} bytes, not {len(value)}")
            buffer[: len(value)] = value
        else:
            setattr(item, name, value)
    return bytes(ffi.buffer(item))


def unpack(struct: str, data: bytes) -> dict[str, object]:
    """The fields of a struct: ints, bytes for byte arrays, tuples for others.

    Extra bytes behind it (a ring buffer rounds up) are ignored; too few are a ValueError.
    """
    room = size(struct)
    if len(data) < room:
        raise ValueError(f"struct {struct} has {room} bytes, not {len(data)}")
    item = ffi.from_buffer(f"struct {struct} *", data[:room])
    return {name: _value(getattr(item, name), raw=raw) for name, raw in _kinds(struct).items()}


def patched(struct: str, data: bytes, **values: object) -> bytes:
    """`data`, which begins with a struct, with some of its fields set."""
    head = unpack(struct, data)
    return pack(struct, **(head | values)) + data[size(struct) :]


def pack_u32(number: int) -> bytes:
    """A map key that is a plain u32."""
    return number.to_bytes(4, sys.byteorder)


def unpack_u32(data: bytes) -> int:
    """The inverse of `pack_u32`."""
    return int.from_bytes(data, sys.byteorder)


def unpack_u64(data: bytes) -> int:
    """A map value that is a plain u64."""
    return int.from_bytes(data, sys.byteorder)


@cache
def layout_digest() -> str:
    """Names, offsets and sizes of everything in pinned maps, as 16 hex digits."""
    layout = [f"abi {ABI_VERSION}"]
    for struct in PINNED_STRUCTS:
        layout.append(f"{struct} {size(struct)}")
        for name, field in ffi.typeof(f"struct {struct}").fields:
            layout.append(f"{name} {field.offset} {ffi.sizeof(field.type)}")
    return hashlib.sha256("\n".join(layout).encode()).hexdigest()[:16]


@cache
def _kinds(struct: str) -> dict[str, bool]:
    """Field -> whether it is an array."""
    return {name: field.type.kind == "array" for name, field in ffi.typeof(f"struct {struct}").fields}


def _value(value: object, *, raw: bool) -> object:
    if not raw:
        return value
    kind = ffi.typeof(value)
    innermost = kind
    while innermost.kind == "array":
        innermost = innermost.item
    if ffi.sizeof(innermost) == 1:
        return bytes(ffi.buffer(value))
    return tuple(value)  # type: ignore[arg-type]
