"""May this licence be used? An allow-list of SPDX identifiers, and expressions over them.

The default holds permissive licences: those of The Stack, with the other common ones that ask for attribution at most.
Weak copyleft (MPL, EPL, LGPL) is not among them: The Stack took those out again as well.
"""

from __future__ import annotations

import re

from teacher_dump.errors import DumpError

PERMISSIVE = (
    *("0BSD", "AFL-3.0", "Apache-2.0", "Artistic-2.0", "BlueOak-1.0.0", "BSD-1-Clause", "BSD-2-Clause"),
    *("BSD-2-Clause-Patent", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-3-Clause-No-Nuclear-License-2014"),
    *("BSD-Source-Code", "BSL-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "CNRI-Python", "curl", "ECL-2.0", "HPND"),
    *("ICU", "ISC", "Libpng", "MIT", "MIT-0", "MIT-CMU", "MIT-feh", "MIT-Modern-Variant", "MulanPSL-2.0", "NCSA"),
    *("OLDAP-2.8", "PostgreSQL", "PSF-2.0", "Python-2.0", "Python-2.0.1", "SHL-0.51", "TCL", "Unicode-DFS-2016"),
    *("Unlicense", "UPL-1.0", "W3C", "WTFPL", "X11", "Zlib", "ZPL-2.1"),
)
"""What the word `permissive` stands for."""

ANY = "any"
_SPLIT = re.compile(r"\s+or\s+|\s*[|/]\s*")
_ALL = re.compile(r"\s+and\s+|\s*[,&]\s*")


def allowed(licences: str) -> frozenset[str] | None:
    """Return the identifiers that an option's value allows, in lower case; None for any.

    The value is `any`, or identifiers separated by commas; `permissive` among them stands for PERMISSIVE.
    """
    names = [name.strip() for name in licences.split(",")]
    if names == [ANY]:
        return None
    if ANY in names or not all(re.fullmatch(r"[\w.+-]+", name) for name in names):
        raise DumpError(
            f"--licences {licences}: expected any, or SPDX identifiers separated by commas such as permissive,MPL-2.0"
        )
    return frozenset(x.lower() for name in names for x in (PERMISSIVE if name == "permissive" else (name,)))


def permits(expression: str, allow: frozenset[str]) -> bool:
    """Return whether an SPDX expression can be met with the allowed licences: all of an AND, one of an OR."""
    plain = expression.lower().replace("(", " ").replace(")", " ").strip()
    return bool(plain) and any(
        all(part.split(" with ")[0].strip() in allow for part in _ALL.split(choice)) for choice in _SPLIT.split(plain)
    )
