"""The way back from the grid that all cases share, on which a training sees them, to a file's."""

from mis.data.geometry import as_shape, centred_start, take_window


def to_file(geometry, seen):
    """Return what was seen of a case, (x, y, z), on the grid of its file."""
    start = as_shape(-centred_start(size, target) for size, target in zip(geometry.size, seen.shape, strict=True))
    return geometry.to_file(take_window(seen, start, geometry.size))
