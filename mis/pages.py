"""HTML pages from the templates that stand beside the modules."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from types import MappingProxyType

import jinja2


def render(
    package: str,
    template: str,
    values: Mapping[str, object],
    filters: Mapping[str, Callable[..., str]] = MappingProxyType({}),
) -> str:
    """Return a page; what comes from `values` is escaped, unless the template says that it is safe.

    Args:
        package: The package in whose folder the template is.
        template: The template's file, for Jinja.
        values: What the template shows, by name; a name that it has and these have not is an error.
        filters: Functions that the template can use.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    return environment.from_string(files(package).joinpath(template).read_text(encoding="utf-8")).render(values)
