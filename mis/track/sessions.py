"""Which session of a run counts: the process that has opened it last, where the clocks of two machines differ too."""

from collections.abc import Mapping

from mis.track.names import OPENED_TAG, SESSION_TAG, STARTED_TAG, TICKS_TAG


def is_overtaken(tags: Mapping[str, str], process: Mapping[str, str], at_ms: int, until_ms: int | None = None) -> bool:
    """Return whether a run was opened once more since a process has opened it.

    Sessions are ordered by the clock, but for one case: a process that delivers its own session and finds a run that
    was opened later than now by its clock. One of the clocks is wrong, and the process that lives has opened it last.

    Args:
        tags: The tags that the run has.
        process: The tags of the process whose session it is.
        at_ms: When the process has opened the run by its clock, in milliseconds since 1970.
        until_ms: The time by the same clock, where the process itself delivers its session; None where others do.
    """
    opened_ms = _session_ms(tags) if _is_of(tags, process) else int(tags.get(OPENED_TAG, "0"))
    return at_ms < opened_ms and (until_ms is None or opened_ms <= until_ms)


def opened_tags(tags: Mapping[str, str], process: Mapping[str, str], at_ms: int) -> dict[str, str]:
    """Return the tags of a session that is not overtaken: it is later than the one before by `mis.opened`.

    Args:
        tags: The tags that the run has.
        process: The tags of the process whose session it is.
        at_ms: When the process has opened the run by its clock, in milliseconds since 1970.
    """
    opened_ms = int(tags.get(OPENED_TAG, "0"))
    is_delivered_again = _is_of(tags, process) and _session_ms(tags) == at_ms
    return {
        OPENED_TAG: str(max(at_ms, opened_ms if is_delivered_again else opened_ms + 1)),
        SESSION_TAG: str(at_ms),
    }


def _session_ms(tags: Mapping[str, str]) -> int:
    """Return when a run was opened last, by the clock of the process that has opened it."""
    return int(tags.get(SESSION_TAG) or tags.get(OPENED_TAG, "0"))


def _is_of(tags: Mapping[str, str], process: Mapping[str, str]) -> bool:
    """Return whether a run was opened last by a process; its ticks tell it better than the time of the day."""
    given = {name: text for name, text in process.items() if name != STARTED_TAG or TICKS_TAG not in process}
    return bool(given) and given.items() <= tags.items()
