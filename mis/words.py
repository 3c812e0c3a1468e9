"""Numbers, durations and lists in words."""


def counted(number: int, name: str) -> str:
    """Return a number of things.

    >>> counted(1, "node"), counted(2, "node")
    ('1 node', '2 nodes')
    """
    return f"{number} {noun(number, name)}"


def noun(number: int, name: str) -> str:
    """Return the name of one thing or of several.

    >>> noun(1, "GPU"), noun(2, "GPU")
    ('GPU', 'GPUs')
    """
    return name if number == 1 else f"{name}s"


def joined(*parts: str) -> str:
    """Return the parts that are not empty, with commas between them.

    >>> joined("2 cores", "", "no GPU")
    '2 cores, no GPU'
    """
    return ", ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """Return a duration as it is shown.

    >>> [duration(seconds) for seconds in (41.2, 59.7, 1500, 3599, 7500)]
    ['41 s', '1 min', '25 min', '1 h 00 min', '2 h 05 min']
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
