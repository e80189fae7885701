"""Started with this folder on PYTHONPATH, a process finds a file system that keeps no locks."""

import errno
import fcntl
import os


def flock(descriptor: int, operation: int) -> None:
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))


fcntl.flock = flock
