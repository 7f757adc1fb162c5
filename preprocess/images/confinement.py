"""Confines a decoder process: it loses all rights that decoding does not need, so a malicious image can do no harm.

After that the kernel refuses (EPERM) all system calls except those about memory, open descriptors, time and the end of
the process itself. The process cannot open files, use the network, start processes or threads, or reach other
processes. So all modules must be imported before. The process cannot undo this, not even as root.

One decoder needs a thread, that of HEIC (libde265), and ends the process if it does not get one. Where it is installed,
threads of this process are allowed: a thread has the same filter, so it can do no more than the process.

The filter is a program for the kernel's classic packet filter, which checks the number of each system call
(seccomp(2)). The kernel remembers which numbers always pass, so the filter has no measurable cost.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_NO_NEW_PRIVS = 38

# The kernel's number of an architecture, by Python's name.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Numbers of system calls on x86_64 and aarch64. The most frequent calls come first.
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "writev": (20, 66),
    "readv": (19, 65),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "mprotect": (10, 226),
    "brk": (12, 214),
    "futex": (202, 98),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),  # continues a sleep after the process was stopped
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "times": (100, 153),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "membarrier": (324, 283),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
# Allowed if the first argument is the process itself: `abort` uses them to end it. `prlimit64` reads its limits.
_ALLOWED_ON_ITSELF = {"kill": (62, 129), "tgkill": (234, 131)}
_ALLOWED_ON_ZERO = {"prlimit64": (302, 261)}
# Allowed with the flags of glibc's `pthread_create` only, so there can be no new process and no namespace. The kernel
# cannot look at the flags of `clone3`. glibc uses `clone` if the kernel says that it has no `clone3`.
_ALLOWED_FOR_THREADS = {"clone": (56, 220)}
_THREAD_FLAGS = 0x3D0F00
_MISSING_FOR_THREADS = {"clone3": (435, 435)}
# What glibc does at the start of a thread: it tells the kernel where the thread keeps its locks and its processor.
_NEEDED_BY_THREADS = {"rseq": (334, 293), "set_robust_list": (273, 99)}

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16  # in struct seccomp_data; both are little-endian
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_MISSING = 0x00050000 | errno.ENOSYS


class _Program(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def make_filter(machine: str, pid: int, *, threads: bool = False) -> bytes:
    """Makes the program of the filter.

    Args:
      machine: "x86_64" or "aarch64".
      pid: the process that is confined.
      threads: whether it may start threads.

    Raises:
      KeyError: the numbers of another machine are not known here.
    """
    architecture = _ARCHITECTURES[machine]
    column = list(_ARCHITECTURES).index(machine)
    refuse, allow = _instruction(_RETURN, _REFUSE), _instruction(_RETURN, _ALLOW)
    program = [
        _instruction(_LOAD, _AT_ARCHITECTURE),
        _instruction(_JUMP_IF_EQUAL, architecture, if_true=1),
        refuse,
        _instruction(_LOAD, _AT_NUMBER),
    ]
    for numbers in (_ALLOWED | _NEEDED_BY_THREADS if threads else _ALLOWED).values():
        program += [_instruction(_JUMP_IF_EQUAL, numbers[column], if_false=1), allow]
    by_first_argument = [(_ALLOWED_ON_ITSELF, pid), (_ALLOWED_ON_ZERO, 0)]
    if threads:
        by_first_argument.append((_ALLOWED_FOR_THREADS, _THREAD_FLAGS))
        for numbers in _MISSING_FOR_THREADS.values():
            program += [
                _instruction(_JUMP_IF_EQUAL, numbers[column], if_false=1),
                _instruction(_RETURN, _MISSING),
            ]
    for names, argument in by_first_argument:
        for numbers in names.values():
            program += [
                _instruction(_JUMP_IF_EQUAL, numbers[column], if_false=4),
                _instruction(_LOAD, _AT_FIRST_ARGUMENT),
                _instruction(_JUMP_IF_EQUAL, argument, if_false=1),
                allow,
                refuse,
            ]
    return b"".join([*program, refuse])


def confine(*, threads: bool = False) -> bool:
    """Confines this process for the rest of its life. The process must have one thread only.

    Args:
      threads: whether it may start threads; no process in any case.

    Returns:
      True if the kernel filters its system calls. Otherwise (the system is not Linux, the machine is neither x86_64 nor
      aarch64, or there is no seccomp) only limits hold: the process can open no more descriptors, can make no file
      larger, and (without `threads`) can start no other process unless it runs as root.
    """
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    if not threads:  # The kernel counts the threads of all processes of a user for this limit.
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if sys.platform != "linux":
        return False
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if platform.machine() not in _ARCHITECTURES or sys.maxsize < 1 << 32:
        return False
    code = make_filter(platform.machine(), os.getpid(), threads=threads)
    program = _Program(len(code) // 8, code)
    return bool(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0) == 0)
