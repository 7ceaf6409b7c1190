"""Settings every test runs under; read before the first JAX call.

Eight CPU devices let mesh tests run anywhere. Strict dtype promotion makes a mixed-dtype product an error.
Highest matmul precision makes float32 comparisons mean float32 on every device.
"""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAXSPEC_CACHE", str(Path(__file__).parents[1] / ".cache" / "jaxspec"))  # not the user's own

import hypothesis
import jax
import pytest
import tiny_model

MOST_MAPS = 40_000  # Linux allows 65,530 by default

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")

# Compiled programs are kept between runs; `make clean` removes them.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# The same examples in every run, so that a failure belongs to the change that caused it; no limit on time.
hypothesis.settings.register_profile("jaxspec", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("jaxspec")


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a small random Llama and a byte-level tokenizer."""
    return tiny_model.write_folder(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    """Forgets compiled programs before they use up the memory maps a process may have, which XLA does not survive."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
