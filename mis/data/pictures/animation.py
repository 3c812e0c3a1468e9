"""The axial slices of a case's brain one after another, four modalities side by side, as an animated GIF."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mis.data.case import MODALITIES
from mis.data.pictures.colours import REGION_COLOURS
from mis.data.pictures.planes import take_plane
from mis.data.pictures.view import AMBER, PHANTOM, View
from mis.files import new_file

MOST_FRAMES = 80
FRAME_MS = 100
MOST_PIXELS = 8_000_000
"""Of all panels: a phantom of 240 x 240 x 155 comes to 2.3 MB, and to 2.9 MB if its brain were white noise."""
TALLEST = 240
"""Pixels of a panel: small volumes are not blown up beyond."""
GREYS = 64
"""Levels: a GIF has no better compression than repetition, and the eye tells no more apart on a screen."""
STRIP, LETTERS = 18, 12
"""Pixels of a line of text and of its letters: two lines stand above the panels, one below."""
NARROWEST = 320
"""Pixels of a frame, whatever the panels have: the lines must be readable."""
FONT = ImageFont.load_default(LETTERS)

Text = tuple[tuple[int, int], str, str]


def draw_slices(view: View, path: Path) -> None:
    """Write the axial slices from below upwards, evenly spaced where there are more than `MOST_FRAMES`."""
    first, count = view.geometry.start[2] - view.first[2], view.geometry.size[2]
    slices = range(first, first + count, -(-count // MOST_FRAMES))
    size = panel_size(view, len(slices))
    frames = [_frame(view, index, size) for index in slices]
    with new_file(path) as unfinished:
        frames[0].save(unfinished, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, optimize=False)


def panel_size(view: View, frames: int) -> tuple[int, int]:
    """Return the pixels of a modality's panel, (width, height): its proportions are those in millimetres."""
    width, height = view.size_mm[:2]
    each = MOST_PIXELS / (frames * len(MODALITIES))
    scale = min((each / (width * height)) ** 0.5, TALLEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def palette(regions: Sequence[str]) -> list[int]:
    """Return the colours of all frames as R, G, B of 0 to 255: grey levels, the regions, the phantom's mark."""
    greys = np.linspace(0, 255, GREYS).round().astype(int).repeat(3).tolist()
    colours = (*(REGION_COLOURS[region] for region in regions), AMBER)
    return [*greys, *(round(255 * part) for colour in colours for part in to_rgb(colour))]


def _frame(view: View, index: int, size: tuple[int, int]) -> Image.Image:
    width, height = size
    canvas = Image.new("L", (max(NARROWEST, width * len(MODALITIES)), height + 3 * STRIP))
    pixels = _written(canvas, _texts(view, index, size)) // (256 // GREYS)
    borders = [_border(mask) for mask in _masks(view, index, size)]
    for number in range(len(MODALITIES)):
        panel = pixels[2 * STRIP : -STRIP, number * width : (number + 1) * width]
        grey = _resized(take_plane(view.grey[..., number], 2, index), size, Image.Resampling.BILINEAR)
        np.maximum(panel, grey // (256 // GREYS), out=panel)
        for channel, border in enumerate(borders):
            panel[border] = GREYS + channel
    for colour, text in _coloured(view, canvas.size):
        pixels[_written(canvas, [text]) > 127] = colour
    frame = Image.fromarray(pixels)
    frame.putpalette(palette(view.regions))
    return frame


def _texts(view: View, index: int, size: tuple[int, int]) -> list[Text]:
    """Return what stands on a frame: where, what, and which point of it is there, as Pillow names it."""
    width, height = size
    names = [((round((number + 0.5) * width), STRIP * 3 // 2), name, "mm") for number, name in enumerate(MODALITIES)]
    middle = 2 * STRIP + height // 2
    sides = [((2, middle), "L", "lm"), ((width - 2, middle), "R", "rm")]
    title = ((6, STRIP // 2), f"{view.title}   axial, z {view.first[2] + index}", "lm")
    return [title, *names, *sides]


def _coloured(view: View, size: tuple[int, int]) -> list[tuple[int, Text]]:
    """Return what stands in the last line of a frame, each with its colour's index in the palette."""
    right, middle = size[0] - 6, size[1] - STRIP // 2
    regions = view.regions if view.masks is not None else ()
    legend: list[tuple[int, Text]] = [
        (GREYS + number, ((6 + 28 * number, middle), name, "lm")) for number, name in enumerate(regions)
    ]
    return [*legend, (GREYS + len(view.regions), ((right, middle), PHANTOM, "rm"))] if view.is_phantom else legend


def _written(canvas: Image.Image, texts: Sequence[Text]) -> NDArray[np.uint8]:
    """Return texts in white on black, uint8 (row, column) of the size of `canvas`."""
    drawn = canvas.copy()
    pen = ImageDraw.Draw(drawn)
    for place, text, anchor in texts:
        pen.text(place, text, fill=255, font=FONT, anchor=anchor)
    return np.array(drawn)


def _masks(view: View, index: int, size: tuple[int, int]) -> list[NDArray[np.bool_]]:
    """Return a slice's regions, bool (row, column) as in a picture."""
    if view.masks is None:
        return []
    plane = take_plane(view.masks, 2, index)
    nearest = Image.Resampling.NEAREST
    return [_resized(plane[..., channel], size, nearest) > 0 for channel in range(plane.shape[-1])]


def _resized(plane: NDArray[np.uint8], size: tuple[int, int], how: Image.Resampling) -> NDArray[np.uint8]:
    """Return a plane whose rows go upwards as a picture's, whose rows go downwards."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane[::-1])).resize(size, how))


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask that have a neighbour outside of it."""
    inside = np.pad(mask, 1)
    whole = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return mask & ~whole
