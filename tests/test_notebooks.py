"""Every notebook runs from top to bottom: on a tiny random model, or on few problems."""

from pathlib import Path

import jax
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PRINTED = {"04_arbitrage": "half the target's gain at", "05_a1": "chunks handed over"}  # the others: tokens "a call"
SLOW = ("03_train_a_cllm", "04_arbitrage", "05_a1")
RUNS = [pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else []) for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_tidy(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 20
    assert "colab.research.google.com" in notebook.cells[0].source
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_notebook_runs(path, tiny_model_folder, monkeypatch):
    monkeypatch.setenv("JAXSPEC_NOTEBOOK_MODEL", str(tiny_model_folder))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # so that jaxspec is there and the notebook installs nothing
    monkeypatch.delenv("MPLBACKEND")  # plots go into the notebook
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert PRINTED.get(path.stem, "a call") in printed
    kinds = {output.output_type for cell in notebook.cells for output in cell.get("outputs", [])}
    assert "display_data" in kinds
