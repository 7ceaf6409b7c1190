"""Scoring models in folders: weights as any model's, and beside them what they say and of which pair they were trained.

A router knows the strengths of one draft and one target. With another pair its scores mean nothing, so loading it
asks for the pair and compares hashes of the weights.
"""

import dataclasses
import hashlib
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxspec.engine.load import load
from jaxspec.models.from_huggingface import config_from_huggingface
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.weights_hash import add_weights
from jaxspec.steps.scorers import AdvantageRouter, RewardModel

SCORING = "scoring.json"


@dataclasses.dataclass(frozen=True)
class ScoringModel:
    """Attributes:
    model: puts out scores instead of logits; what `solve` takes as `scorer`.
    score: how its outputs are read; what a policy takes as `scorer`.
    quantiles: of the scores of draft steps it was measured on, evenly from the lowest to the highest; none if it was
      measured on none.
    """

    model: LanguageModel
    score: RewardModel | AdvantageRouter
    quantiles: tuple[float, ...]

    def line(self, rate: float) -> float:
        """The score below which a share `rate` of the draft steps lay that it was measured on.

        Raises:
          ValueError: it was measured on none.
        """
        if not self.quantiles:
            raise ValueError(f"{self.model.name} was measured on no steps of a draft; choose a threshold yourself")
        return float(np.interp(rate, np.linspace(0.0, 1.0, len(self.quantiles)), self.quantiles))


_hashes: weakref.WeakKeyDictionary[LanguageModel, str] = weakref.WeakKeyDictionary()


def weights_hash(lm: LanguageModel) -> str:
    """SHA-256 over all weights, rounded to bfloat16 so that it does not depend on the type a model is loaded in."""
    if lm not in _hashes:
        digest = hashlib.sha256()
        add_weights(digest, lm.params, rounded=True)
        _hashes[lm] = digest.hexdigest()
    return _hashes[lm]


def describe_scoring(
    folder: str | Path, kind: str, draft: LanguageModel, target: LanguageModel, scores: Sequence[float] | np.ndarray
) -> None:
    """Writes down what the scoring model in a folder says, and of which pair.

    Args:
      folder: of the model.
      kind: `reward`, or what a router `expects`.
      draft, target: the pair it was trained on.
      scores: that it gave to draft steps it was not trained on, higher for better steps.
    """
    quantiles = [float(value) for value in np.quantile(np.asarray(scores, np.float64), np.linspace(0.0, 1.0, 101))]
    record = {"kind": kind, "draft": weights_hash(draft), "target": weights_hash(target), "quantiles": quantiles}
    (Path(folder) / SCORING).write_text(json.dumps(record, indent=2) + "\n")


def load_scorer(
    folder: str | Path, draft: LanguageModel, target: LanguageModel, *, dtype: str = "auto"
) -> ScoringModel:
    """A reward model or router that was trained here, or a published process reward model.

    Args:
      folder: of the model.
      draft, target: the pair it is to be used with; a reward model serves any pair of its vocabulary.
      dtype: see `load`.

    Raises:
      FileNotFoundError: the folder, or what a model trained here says of itself, is missing.
      ValueError: it is damaged, or a router of another pair.
    """
    path = Path(folder) / SCORING
    if not path.exists():
        described = path.with_name("config.json")
        if not described.exists() or config_from_huggingface(json.loads(described.read_text())).outputs != 1:
            raise FileNotFoundError(f"{path} does not exist; it says what a scoring model was trained for")
        return ScoringModel(load(folder, dtype=dtype), RewardModel(), ())
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        kind, hashes = str(record["kind"]), {name: str(record[name]) for name in ("draft", "target")}
        quantiles = tuple(float(value) for value in record["quantiles"])
        score = RewardModel() if kind == "reward" else AdvantageRouter(kind)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not describe a scoring model: {error!r}") from None
    if kind != "reward":
        for name, lm in (("draft", draft), ("target", target)):
            if weights_hash(lm) != hashes[name]:
                raise ValueError(
                    f"the router in {folder} was trained for another {name} (weights {hashes[name][:12]}, not "
                    f"{weights_hash(lm)[:12]}); train one for this pair, or load the {name} it was trained for"
                )
    model = load(folder, dtype=dtype)
    if model.config.outputs is None:
        raise ValueError(f"{folder} holds a language model, not a scoring model")
    score.check_outputs(model.config.outputs)
    return ScoringModel(model, score, quantiles)
