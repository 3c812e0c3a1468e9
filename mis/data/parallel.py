"""Work on many cases at once, with a progress bar."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(
    work: Callable[[Item], Result], items: Sequence[Item], pool: Executor, *, description: str, progress: bool
) -> list[Result]:
    """Call `work` with every item; after an error with one of them no other is begun.

    Args:
        work: The function to call.
        items: Its arguments: cases, or their numbers.
        pool: The threads or processes that call it; it is shut down.
        description: The text of the progress bar.
        progress: Whether to show a progress bar.

    Returns:
        What `work` returned, in the order of the items.
    """
    with pool:
        waiting = [pool.submit(work, item) for item in items]
        try:
            with tqdm(total=len(waiting), desc=description, unit="case", disable=not progress) as bar:
                for future in as_completed(waiting):
                    future.result()
                    bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in waiting]
