"""Where what was measured or computed once is kept between runs."""

import os
import tempfile
from pathlib import Path


def kept_folder() -> Path:
    """`JAXSPEC_CACHE`, or `~/.cache/jaxspec`; for a user without a home a folder among temporary files."""
    try:
        return Path(os.environ.get("JAXSPEC_CACHE") or Path.home() / ".cache" / "jaxspec")
    except RuntimeError:  # no home
        return Path(tempfile.gettempdir()) / "jaxspec"
