"""Does many slow things at once, such as requests to a bucket, and gives their results in order with bounded memory."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_order(function: Callable[[_Item], _Result], items: Iterable[_Item], *, at_once: int) -> Iterator[_Result]:
    """Calls a function for each item in threads, and gives the results in the order of the items.

    `ThreadPoolExecutor.map` takes all items and keeps all results from the start. This takes an item only when there is
    room: at most twice `at_once` items are taken whose results were not asked for.

    Args:
      function: called in a thread.
      items: iterated in the caller's thread.
      at_once: the number of threads.

    Raises:
      Exception: what the function raised for the first item that failed.
    """
    pending: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()
    threads = concurrent.futures.ThreadPoolExecutor(at_once)
    try:
        for item in items:
            pending.append(threads.submit(function, item))
            if len(pending) >= 2 * at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
