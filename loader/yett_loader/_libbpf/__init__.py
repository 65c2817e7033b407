"""The boundary: `ffi` and `lib` of the compiled extension, nothing else."""

from yett_loader._libbpf._ffi import ffi, lib

__all__ = ["ffi", "lib"]
