"""What Linux offers and Python does not: signals as a descriptor, and children that end with us."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

PR_SET_PDEATHSIG = 1
SI_KERNEL = 0x80
SIGNAL_SET_SIZE = 128
"""Bytes of a `sigset_t`; no library has a larger one."""

_RECORD = struct.Struct("=Iii116x")
"""Number, errno and code of a `signalfd_siginfo`."""
_RECORDS_READ = 32


class Signal(NamedTuple):
    """A signal that came.

    Args:
        number: Such as `signal.SIGTERM`.
        is_from_terminal: The kernel sent it, to the whole foreground group.
    """

    number: int
    is_from_terminal: bool


def end_with_parent(number: int) -> None:
    """Have the kernel send this process the signal *number* when its parent ends."""
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)


def open_signals(numbers: Iterable[int]) -> int:
    """Return a descriptor from which the signals *numbers*, which are blocked, can be read."""
    library = ctypes.CDLL(None, use_errno=True)
    signals = ctypes.create_string_buffer(SIGNAL_SET_SIZE)
    library.sigemptyset(signals)
    for number in numbers:
        library.sigaddset(signals, number)
    descriptor = int(library.signalfd(-1, signals, os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


def read_signals(descriptor: int) -> list[Signal]:
    """Return the signals that came, in their order."""
    try:
        records = os.read(descriptor, _RECORDS_READ * _RECORD.size)
    except BlockingIOError:
        return []
    return [Signal(number, code == SI_KERNEL) for number, _, code in _RECORD.iter_unpack(records)]
