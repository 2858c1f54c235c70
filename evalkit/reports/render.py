"""Render the HTML templates. All pages share one jinja2 environment.

Pages are self-contained: they refer to no other file and no address.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalkit.errors import EvalError
from evalkit.outputs.files import write_text
from evalkit.text import visible


def render(path: Path, template: str, **values: Any) -> None:
    """Fill a template and write the page to `path`.

    Args:
        path: The HTML file.
        template: File name in `evalkit/reports/templates`.
        **values: Variables of the template.

    Raises:
        EvalError: The page cannot be written, or jinja2 is not installed.
    """
    write_text(path, environment().get_template(template).render(**values))


def environment() -> Any:
    """Return the jinja2 environment: HTML and control characters are escaped, undefined variables are errors.

    Raises:
        EvalError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise EvalError("the page needs jinja2, which is not installed; install 'teacherless[eval]'") from None

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
    )
