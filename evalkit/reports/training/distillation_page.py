"""Write a distillation report as one HTML page and as Markdown."""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import EvalError
from evalkit.outputs.files import require_writable, write_text
from evalkit.reports.render import render
from evalkit.reports.training.distillation import Report


def write(report: Report, *, out: Path, markdown: Path | None = None) -> None:
    """Write the HTML page, and the tables as Markdown if requested.

    Args:
        report: The tables.
        out: The HTML file.
        markdown: The Markdown file; None for none.

    Raises:
        EvalError: A file cannot be written, or the libraries that draw the page are not installed.
    """
    for path in (out, markdown):
        if path is not None:
            require_writable(path)
    try:
        from evalkit.reports.training.plots import training_plots

        plots = [training_plots(section.run, section.control) for section in report.sections]
    except ImportError as error:
        raise EvalError(f"the page needs {error.name}, which is not installed; install 'teacherless[eval]'") from None
    render(out, "distillation.html.j2", sections=list(zip(report.sections, plots, strict=True)))
    if markdown is not None:
        write_text(markdown, as_markdown(report))


def as_markdown(report: Report) -> str:
    """Return the tables as Markdown."""
    lines = []
    for section in report.sections:
        lines += [f"**{section.title}**", "", "| " + " | ".join(section.columns) + " |"]
        lines.append("|" + " --- |" * len(section.columns))
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in section.rows]
        lines += ["", *(f"- {remark}" for remark in section.remarks), ""]
    return "\n".join(lines)
