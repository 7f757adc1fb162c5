"""An iterator that works ahead in a thread."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

_POLL_SEC = 0.1


class _End(Generic[Item]):
    """Marks the end of the items. Holds the exception if one ended them."""

    def __init__(self, error: BaseException | None):
        self.error = error


def prefetched(items: Iterator[Item], *, depth: int) -> Generator[Item, None, None]:
    """The same items in the same order, made by a thread while the caller works on earlier ones.

    Args:
      items: only the thread may iterate over them.
      depth: how many finished items may wait; the thread makes one more meanwhile.

    Yields:
      The items. If their iterator raises an exception, this generator raises it after the items before it. When this
      generator is exhausted or closed, the thread has ended and `items` is closed.
    """
    ready: queue.Queue[Item | _End[Item]] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Item | _End[Item]) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=_POLL_SEC)
                return

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    break
        except BaseException as caught:
            error = caught
        finally:
            if hasattr(items, "close"):
                items.close()
        put(_End(error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        with contextlib.suppress(queue.Empty):  # Makes room, so that a waiting `put` returns at once.
            while True:
                ready.get_nowait()
        thread.join()
