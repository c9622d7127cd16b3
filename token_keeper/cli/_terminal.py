"""A terminal that is drawn on, and given back as it was whatever happens."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType
from typing import Self

from token_keeper.cli._printing import has_colours
from token_keeper.cli._spans import Line, painted

BEGIN = "\x1b[?1049h\x1b[?25l\x1b[2J"
END = "\x1b[?25h\x1b[?1049l"
NOTED = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Terminal:
    """The terminal of standard input and output, on its alternate screen.

    Signals do not interrupt: they are read, as keys are. Ctrl-Z gives the
    terminal back until the program goes on.

    Attributes:
        keyboard: Descriptor to poll for keys.
        signals: Descriptor to poll for signals.
    """

    def __init__(self) -> None:
        self.keyboard = sys.stdin.fileno()
        self.signals = -1
        self._written = -1
        self._mode: list[object] = []
        self._former: dict[int, object] = {}
        self._colours = has_colours()

    def __enter__(self) -> Self:
        self.signals, self._written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        for number in NOTED:
            self._former[number] = signal.signal(number, _note)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number, former in self._former.items():
            signal.signal(number, former)  # type: ignore[arg-type] # It is what signal() returned.
        os.close(self.signals)
        os.close(self._written)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines that can be drawn on."""
        try:
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return 79, 24
        # A full last column leaves the cursor on the line, and what erases the rest would erase it.
        return max(columns - 1, 1), max(lines, 1)

    def draw(self, lines: Sequence[Line]) -> None:
        """Show *lines*, and nothing else."""
        text = "\x1b[K\r\n".join(painted(line, has_colours=self._colours) for line in lines)
        self._write(f"\x1b[H{text}\x1b[K\x1b[J")

    def read_keys(self) -> str:
        """Return the keys that were pressed."""
        try:
            return os.read(self.keyboard, 1_024).decode("utf-8", "replace")
        except OSError:
            return ""

    def read_signals(self) -> list[int]:
        """Return the signals that came. A stop is obeyed."""
        numbers = list(os.read(self.signals, 1_024))
        if signal.SIGTSTP in numbers:
            self._give_back()
            # Not SIGSTOP: without a shell above us nobody would continue us.
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, _note)
            self._take()
        return numbers

    def _take(self) -> None:
        self._mode = termios.tcgetattr(self.keyboard)
        tty.setcbreak(self.keyboard)
        self._write(BEGIN)

    def _give_back(self) -> None:
        self._write(END)
        try:
            termios.tcsetattr(self.keyboard, termios.TCSADRAIN, self._mode)  # type: ignore[arg-type] # Of tcgetattr().
        except termios.error:
            return

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:
            # The terminal is gone: SIGHUP tells.
            return


def _note(_number: int, _frame: FrameType | None) -> None:
    """Let the number be written to the pipe."""
