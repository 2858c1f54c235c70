"""Hook of MkDocs: pages at the root of the repository are part of the site, and links between them and docs/ work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "quick_start.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
"""Name of each page at the root on the site, whose root is docs/. A README.md would be its start page."""
_TO_ROOT = re.compile(rf"\]\(((?:\.\./)*)({'|'.join(PAGES).replace('.', '[.]')})(?=[)#])")
_TO_NO_PAGE = re.compile(r"\[([^\]]+)\]\((?:\.\./)*(?:LICENSE|benchmarks/[\w/]+\.py|scripts/[\w/.]+)\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages at the root."""
    from mkdocs.structure.files import File

    for name, site_name in PAGES.items():
        files.append(File.generated(config, site_name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Rewrite links for the site. A link to a file that is no page, such as a script, becomes its text."""
    source = page.file.src_uri
    if source in PAGES.values():
        markdown = markdown.replace("](docs/", "](")
    up = "../" * source.count("/")
    markdown = _TO_ROOT.sub(lambda link: f"]({up}{PAGES[link[2]]}", markdown)
    return _TO_NO_PAGE.sub(r"\1", markdown)
