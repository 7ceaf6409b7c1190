"""jaxspec: large language models answer faster in JAX, by speculation, without changing what they say."""

from jaxspec import conformal, drafters
from jaxspec.decode.acceptance import Coupled, Greedy
from jaxspec.decode.rejection import Rejection
from jaxspec.decode.typical import Typical
from jaxspec.engine.generate import generate, stream
from jaxspec.engine.load import load
from jaxspec.engine.plan import MemoryPlan, plan
from jaxspec.engine.result import Generation, GenerationStatistics
from jaxspec.engine.score_model import load_scorer
from jaxspec.models.config import ModelConfig, RopeScaling
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import ModelFn, from_nnx
from jaxspec.models.transformer import transformer_fn
from jaxspec.weights.parameters import partition
from jaxspec.weights.pull import pull
from jaxspec.weights.quantize import quantize

__all__ = [
    "Coupled",
    "Generation",
    "GenerationStatistics",
    "Greedy",
    "LanguageModel",
    "MemoryPlan",
    "ModelConfig",
    "ModelFn",
    "Rejection",
    "RopeScaling",
    "Typical",
    "conformal",
    "drafters",
    "from_nnx",
    "generate",
    "load",
    "load_scorer",
    "partition",
    "plan",
    "pull",
    "quantize",
    "steps",
    "stream",
    "transformer_fn",
]

from jaxspec import steps  # noqa: E402  last, because its facade needs the engine above it
