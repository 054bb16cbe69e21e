"""A filter of system calls for bubblewrap: what would give student code memory that belongs to no process.

Memory files and System V segments are counted for nobody, so the guard that watches processes would not see them; and
namespaces within the sandbox could mount file systems in memory. Threads, forks and programs stay allowed.
"""

import errno
import platform
import struct

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of the kernel's packet filter
ALLOW, REFUSE = 0x7FFF0000, 0x50000  # seccomp's answers; the second carries an errno
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # places in what the filter is shown
NEW_USER_NAMESPACE = 0x10000000
CLONE3 = 435
#: machine -> its audit number, clone; refused: shmget, msgget, mount, unshare, memfd_create, io_uring_setup.
MACHINES = {"x86_64": (0xC000003E, 56, (29, 68, 165, 272, 319, 425)),
            "aarch64": (0xC00000B7, 220, (194, 186, 40, 97, 279, 425))}


def program() -> bytes | None:
    """The filter as the kernel reads it, or None on a machine whose numbers are not known here."""
    if platform.machine() not in MACHINES:
        return None
    architecture, clone, refused = MACHINES[platform.machine()]
    steps = [_step(LOAD, ARCHITECTURE), _step(EQUAL, architecture, yes=1), _refuse(errno.EPERM), _step(LOAD, NUMBER),
             _step(AT_LEAST, 1 << 30, no=1), _refuse(errno.EPERM)]  # x32, which has numbers of its own
    for number in refused:
        steps += [_step(EQUAL, number, no=1), _refuse(errno.EPERM)]
    steps += [_step(EQUAL, CLONE3, no=1), _refuse(errno.ENOSYS)]  # its flags are out of sight: libc then takes clone
    steps += [_step(EQUAL, clone, no=3), _step(LOAD, FIRST_ARGUMENT), _step(ANY_BIT, NEW_USER_NAMESPACE, no=1),
              _refuse(errno.EPERM), _step(RETURN, ALLOW)]
    return b"".join(steps)


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; ``yes`` and ``no``: how many to skip where the comparison holds, or does not."""
    return struct.pack("=HBBI", code, yes, no, value)


def _refuse(error: int) -> bytes:
    return _step(RETURN, REFUSE | error)
