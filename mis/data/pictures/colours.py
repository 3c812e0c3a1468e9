"""How each region is drawn, in every picture."""

REGION_COLOURS = {"WT": "#2f9e44", "TC": "#f08c00", "ET": "#e03131"}
"""Red and green alone do not tell regions apart for every reader: a dash, a mark or a label does as well."""

REGION_DASHES = {"WT": "solid", "TC": (0, (6, 2)), "ET": (0, (2, 1.5))}
