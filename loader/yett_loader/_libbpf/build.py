"""Build `_ffi`: libbpf and the structs of yett_abi.h, in cffi's API mode.

setuptools runs this file by its path (setup.py); `python loader/yett_loader/_libbpf/build.py`
builds the extension in place.  The structs and numbers of our ABI are written nowhere but in
the header: cffi reads its preprocessed text, the C compiler includes the header itself, and
where the two disagree the build fails.
"""

import hashlib
import os
import shlex
import subprocess
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ABI = ROOT / "bpf_src" / "include" / "yett_abi.h"

TYPES = """
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
"""

SOURCE = """
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* vasprintf */
#endif
#include <stdio.h>
#include <stdlib.h>
#include <linux/bpf.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "yett_abi.h"

/* Numbers of kernel 6.6, which the headers of older distributions lack. */
enum { YETT_TCX_INGRESS = 46, YETT_TCX_EGRESS = 47 };

static const char yett_abi_digest[] = "@DIGEST@";

struct tcx_link_info {
	__u32 type, id, prog_id, pad, ifindex, attach_type;
};

static void yett_log(int level, char *line);

/* cffi has no va_list: format here, hand over text. */
static int yett_print(enum libbpf_print_level level, const char *format, va_list args)
{
	char *line = NULL;

	if (level == LIBBPF_DEBUG || vasprintf(&line, format, args) < 0)
		return 0;
	yett_log(level, line);
	free(line);
	return 0;
}

static void yett_log_to_python(void)
{
	libbpf_set_print(yett_print);
}
"""


def abi_declarations() -> str:
    """The structs and enums of yett_abi.h, preprocessed, comments gone."""
    command = [*shlex.split(os.environ.get("CC", "cc")), "-E", "-P", "-DYETT_CDEF", "-x", "c", str(ABI)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def abi_digest() -> str:
    """Of the preprocessed header: tells whether a built extension is the one of this source."""
    return hashlib.sha256(abi_declarations().encode()).hexdigest()


ffibuilder = FFI()
ffibuilder.cdef(TYPES)
ffibuilder.cdef((HERE / "libbpf.cdef.h").read_text())
ffibuilder.cdef(abi_declarations())
ffibuilder.set_source(
    "yett_loader._libbpf._ffi",
    SOURCE.replace("@DIGEST@", abi_digest()),
    libraries=["bpf"],
    include_dirs=[str(ABI.parent)],
    depends=[str(ABI), str(HERE / "libbpf.cdef.h")],
)

if __name__ == "__main__":
    ffibuilder.compile(tmpdir=str(ROOT / "loader"))
