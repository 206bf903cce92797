"""The iterator that `Trainer.run` returns: iterating trains; leaving or interrupting the loop saves a checkpoint."""

import atexit
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from ..errors import CharRNNError, warn
from ..runs.metrics import Row
from .budget import Clock

NOT_BEGUN = "Training has not begun: it goes on only while you iterate, as in `for row in trainer.run(): ...`"
_running: weakref.WeakValueDictionary[Path, "Rows"] = weakref.WeakValueDictionary()  # those that hold a run's folder


class Rows(Iterator[Row]):
    """The rows of metrics.csv as they are written.

    Left early, by `close`, `break` or an error in the loop, it saves a checkpoint. SIGINT saves too, within a step, and then
    raises KeyboardInterrupt. Both hold for a run in one process; with several workers, `Trainer.stop` ends all of them.
    """

    def __init__(
        self, rows: Generator[Row], folder: Path, clock: Clock, stop: Callable[[], None], hint: str | None = None
    ) -> None:
        """hint: the warning for rows that are never iterated over; default: NOT_BEGUN."""
        self._hint = hint or NOT_BEGUN
        self._rows, self._folder, self._clock, self._stop = rows, Path(os.path.realpath(folder)), clock, stop
        self._begun = self._ended = False
        self._training = threading.Lock()  # held while the next row is waited for
        self._interrupted = False
        self._handler = _handler(weakref.ref(self))

    def __next__(self) -> Row:
        """Train up to the next row."""
        if self._ended:
            raise StopIteration
        if not self._begun:
            release(self._folder)
            self._begun, _running[self._folder] = True, self
        self._take_interrupts()
        with self._training, self._clock.running():
            try:
                row = next(self._rows)
                while self._interrupted:
                    row = next(self._rows)
                return row
            except BaseException:
                self._end()
                if self._interrupted:
                    raise KeyboardInterrupt(f"stopped; all steps of the run in {str(self._folder)!r} are saved") from None
                raise

    def close(self) -> None:
        """End the run after saving; does nothing while another thread trains."""
        if self._begun and not self._ended and self._training.acquire(blocking=False):
            try:
                self._rows.close()
            finally:
                self._training.release()
                self._end()

    def __del__(self) -> None:
        if not self._begun:
            warn(self._hint)
        elif not sys.is_finalizing():
            _close(self)

    def __repr__(self) -> str:
        if not self._begun:
            return f"<{self._hint}>"
        return f"<rows of the run in {str(self._folder)!r}{', ended' if self._ended else ''}>"

    def _take_interrupts(self) -> None:
        """Handle SIGINT if Python's default handler is installed; notebooks install that again before each cell."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handler)

    def _interrupt(self, number: int, frame: Any) -> None:
        """Stop after the current compiled call; a second SIGINT, or one between two rows, stops at once."""
        if self._training.locked() and not self._interrupted:
            self._interrupted = True
            self._stop()
            return
        self.close()
        signal.default_int_handler(number, frame)

    def _end(self) -> None:
        self._ended = True
        if _running.get(self._folder) is self:
            del _running[self._folder]
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is self._handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        warn.cache_clear()  # the next run says again what there is to say


def _handler(reference: "weakref.ref[Rows]") -> Callable[[int, Any], None]:
    """A SIGINT handler with a weak reference to the rows, so that unreferenced rows can save their run and end."""

    def handle(number: int, frame: Any) -> None:
        rows = reference()
        (rows._interrupt if rows else signal.default_int_handler)(number, frame)

    return handle


def release(folder: str | Path) -> None:
    """Save and end a run that this process has begun in a folder and left between two rows."""
    rows = _running.get(Path(os.path.realpath(folder)))
    if rows:
        rows.close()


def _close(rows: Rows) -> None:
    """Close the rows, and log a CharRNNError as a warning."""
    try:
        rows.close()
    except CharRNNError as error:
        warn(str(error))


@atexit.register
def _close_all() -> None:
    for rows in list(_running.values()):
        _close(rows)
