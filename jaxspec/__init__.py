"""jaxspec: large language models answer faster in JAX, by speculation, without changing what they say."""

from jaxspec import drafters
from jaxspec.decode.acceptance import Coupled, Greedy
from jaxspec.engine.generate import generate, stream
from jaxspec.engine.load import load
from jaxspec.engine.plan import MemoryPlan, plan
from jaxspec.engine.result import Generation, GenerationStatistics
from jaxspec.models.config import ModelConfig, RopeScaling
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import ModelFn, from_nnx
from jaxspec.models.transformer import transformer_fn
from jaxspec.weights.parameters import partition
from jaxspec.weights.pull import pull

__all__ = [
    "Coupled",
    "Generation",
    "GenerationStatistics",
    "Greedy",
    "LanguageModel",
    "MemoryPlan",
    "ModelConfig",
    "ModelFn",
    "RopeScaling",
    "drafters",
    "from_nnx",
    "generate",
    "load",
    "partition",
    "plan",
    "pull",
    "stream",
    "transformer_fn",
]
