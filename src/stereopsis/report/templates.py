"""Where the pages' templates lie, and how they are filled in."""

from pathlib import Path
from typing import TYPE_CHECKING

from stereopsis.errors import MissingExtraError

if TYPE_CHECKING:
    import jinja2

TEMPLATE_FOLDER = Path(__file__).resolve().parent / "template"


def escaped(text: object) -> str:
    """Text for a page or an SVG, in elements and in quoted attributes: the escaping that the templates have, too.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import markupsafe
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "A page") from error
    return str(markupsafe.escape(text))


def template_environment() -> "jinja2.Environment":
    """Templates of this package; everything that is filled in is escaped, and nothing may be left undefined.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "A report") from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
