"""The colour and the dashes of each region, in every picture."""

REGION_COLOURS = {"WT": "#2f9e44", "TC": "#f08c00", "ET": "#e03131"}
"""Not every reader can tell red from green: dashes, marks or labels tell the regions apart too."""

REGION_DASHES = {"WT": "solid", "TC": (0, (6, 2)), "ET": (0, (2, 1.5))}
