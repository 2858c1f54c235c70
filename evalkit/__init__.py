"""How good is a checkpoint at writing programs, and how sure are we?

`evalkit` reads a checkpoint folder (or samples made elsewhere), runs what the model wrote in a confined
process and writes one JSON result. It imports none of the other packages and meets them through files.
"""

from __future__ import annotations

__version__ = "0.1.0"
