"""Work on many things at once, with a bar."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(
    work: Callable[[Item], Result], items: Sequence[Item], pool: Executor, *, told: str, progress: bool
) -> list[Result]:
    """Call `work` for every item; after an error in one of them no other is begun.

    Args:
        work: What to do.
        items: With what: cases, or their numbers.
        pool: Threads or processes that do it, which are ended.
        told: What the bar says.
        progress: Whether there is one.

    Returns:
        What it returned, in the order of the items.
    """
    with pool:
        waiting = [pool.submit(work, item) for item in items]
        try:
            with tqdm(total=len(waiting), desc=told, unit="case", disable=not progress) as bar:
                for future in as_completed(waiting):
                    future.result()
                    bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in waiting]
