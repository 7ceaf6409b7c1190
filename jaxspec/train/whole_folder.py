"""Folders that are there only once all of them is written, so that an interrupted run can be resumed."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which takes the name `path` when the block ends, and is left behind if it fails.

    Args:
      path: not there yet; what an earlier failure left beside it is removed.
    """
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    partial.rename(path)
