"""An animated GIF of a case: its axial slices one after another, the four modalities side by side."""

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
"""Most pixels of all panels: a phantom of 240 x 240 x 155 makes 2.3 MB, and 2.9 MB if its brain were white noise."""
LONGEST_EDGE = 240
"""Most pixels along the longer edge of a panel: small volumes are not enlarged beyond it."""
GREYS = 64
"""Grey levels: a GIF compresses repetition alone, and the eye tells no more levels apart on a screen."""
LINE_HEIGHT, LETTER_HEIGHT = 18, 12
"""Pixels of a line of text and of its letters: two lines are above the panels, one is below."""
NARROWEST = 320
"""Least pixels of a frame's width: the lines of text must fit."""
FONT = ImageFont.load_default(LETTER_HEIGHT)

Text = tuple[tuple[int, int], str, str]
"""A text: the pixel (x, y) that it is anchored at, the text, and Pillow's name of the anchor."""


def draw_slices(view: View, path: Path) -> None:
    """Write the axial slices from inferior to superior, evenly spaced where there are more than `MOST_FRAMES`."""
    first, count = view.geometry.start[2] - view.first[2], view.geometry.size[2]
    slices = range(first, first + count, -(-count // MOST_FRAMES))
    size = panel_size(view, len(slices))
    frames = [_frame(view, index, size) for index in slices]
    with new_file(path) as unfinished:
        frames[0].save(unfinished, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, optimize=False)


def panel_size(view: View, frames: int) -> tuple[int, int]:
    """Return the width and the height of a modality's panel in pixels: its proportions are those in millimetres."""
    width, height = view.size_mm[:2]
    most_pixels = MOST_PIXELS / (frames * len(MODALITIES))
    scale = min((most_pixels / (width * height)) ** 0.5, LONGEST_EDGE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def palette(regions: Sequence[str]) -> list[int]:
    """Return the colours of all frames as R, G, B of 0 to 255: grey levels, the regions, the phantom's mark."""
    greys = np.linspace(0, 255, GREYS).round().astype(int).repeat(3).tolist()
    colours = (*(REGION_COLOURS[region] for region in regions), AMBER)
    return [*greys, *(round(255 * part) for colour in colours for part in to_rgb(colour))]


def _frame(view: View, index: int, size: tuple[int, int]) -> Image.Image:
    """Return the frame of a slice: a panel for each modality, the outlines of the regions, and the lines of text."""
    width, height = size
    canvas = Image.new("L", (max(NARROWEST, width * len(MODALITIES)), height + 3 * LINE_HEIGHT))
    pixels = _draw_texts(canvas, _white_texts(view, index, size)) // (256 // GREYS)
    borders = [_border(mask) for mask in _masks(view, index, size)]
    for number in range(len(MODALITIES)):
        panel = pixels[2 * LINE_HEIGHT : -LINE_HEIGHT, number * width : (number + 1) * width]
        grey = _resized(take_plane(view.grey[..., number], 2, index), size, Image.Resampling.BILINEAR)
        np.maximum(panel, grey // (256 // GREYS), out=panel)
        for channel, border in enumerate(borders):
            panel[border] = GREYS + channel
    for colour, text in _coloured_texts(view, canvas.size):
        pixels[_draw_texts(canvas, [text]) > 127] = colour
    frame = Image.fromarray(pixels)
    frame.putpalette(palette(view.regions))
    return frame


def _white_texts(view: View, index: int, size: tuple[int, int]) -> list[Text]:
    """Return the white texts of a frame: title, names of the modalities, left and right."""
    width, height = size
    names = [
        ((round((number + 0.5) * width), LINE_HEIGHT * 3 // 2), name, "mm") for number, name in enumerate(MODALITIES)
    ]
    middle = 2 * LINE_HEIGHT + height // 2
    sides = [((2, middle), "L", "lm"), ((width - 2, middle), "R", "rm")]
    title = ((6, LINE_HEIGHT // 2), f"{view.title}   axial, z {view.first[2] + index}", "lm")
    return [title, *names, *sides]


def _coloured_texts(view: View, size: tuple[int, int]) -> list[tuple[int, Text]]:
    """Return the texts of the last line of a frame, each with the index of its colour in the palette."""
    right, middle = size[0] - 6, size[1] - LINE_HEIGHT // 2
    regions = view.regions if view.masks is not None else ()
    legend: list[tuple[int, Text]] = [
        (GREYS + number, ((6 + 28 * number, middle), name, "lm")) for number, name in enumerate(regions)
    ]
    return [*legend, (GREYS + len(view.regions), ((right, middle), PHANTOM, "rm"))] if view.is_phantom else legend


def _draw_texts(canvas: Image.Image, texts: Sequence[Text]) -> NDArray[np.uint8]:
    """Return a copy of a canvas with texts in white, uint8 (row, column)."""
    drawn = canvas.copy()
    pen = ImageDraw.Draw(drawn)
    for position, text, anchor in texts:
        pen.text(position, text, fill=255, font=FONT, anchor=anchor)
    return np.array(drawn)


def _masks(view: View, index: int, size: tuple[int, int]) -> list[NDArray[np.bool_]]:
    """Return the masks of a slice's regions, bool (row, column) of a panel; none where there is no label."""
    if view.masks is None:
        return []
    plane = take_plane(view.masks, 2, index)
    nearest = Image.Resampling.NEAREST
    return [_resized(plane[..., channel], size, nearest) > 0 for channel in range(plane.shape[-1])]


def _resized(plane: NDArray[np.uint8], size: tuple[int, int], resampling: Image.Resampling) -> NDArray[np.uint8]:
    """Return a plane, whose rows go upwards, as a picture of this size, whose rows go downwards."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane[::-1])).resize(size, resampling))


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask that have a neighbour outside of it, bool (row, column)."""
    inside = np.pad(mask, 1)
    surrounded = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return mask & ~surrounded
