"""Work on many cases at once, with a bar."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from tqdm import tqdm

from mis.data.case import Case

Result = TypeVar("Result")


def for_each(
    work: Callable[[Case], Result], cases: Sequence[Case], jobs: int, *, told: str, progress: bool
) -> list[Result]:
    """Call `work` for every case in threads: unpacking and arithmetic release the interpreter's lock.

    Args:
        work: What to do.
        cases: With what.
        jobs: Cases at once.
        told: What the bar says.
        progress: Whether there is one.

    Returns:
        What it returned, in the order of the cases.
    """
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(work, case) for case in cases]
        try:
            with tqdm(total=len(waiting), desc=told, unit="case", disable=not progress) as bar:
                for future in as_completed(waiting):
                    future.result()
                    bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in waiting]
