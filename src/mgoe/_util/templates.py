"""Templates of pages and cards, each in the package that fills them in."""

import jinja2


def templates_of(package: str, html: bool = True) -> jinja2.Environment:
    """Return the templates in the folder of a package; a name that none is given for is an error.

    Args:
        package: Its name.
        html: Whether values are escaped as HTML.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
