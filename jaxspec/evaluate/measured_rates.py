"""How often the proposals of a mix are right, class by class, counted on recorded texts: what it may begin with."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxspec.drafters.mix import Mix, Prior
from jaxspec.evaluate.recording import Recording
from jaxspec.evaluate.replay import state_after
from jaxspec.models.language_model import LanguageModel

GUESSED_TRIALS = 8.0  # what the guess is worth that stands where little was counted
DIGITS = 4


def measured_rates(mix: Mix, texts: Iterable[tuple[LanguageModel, Recording]]) -> Prior:
    """Rates for `jaxspec.drafters.mix(..., prior=...)`, by replay.

    Every candidate counts whose prefix came true, as in decoding, and nothing is forgotten. What the mix learns besides
    it carries from one text to the next where its drafters share it.

    Args:
      mix: the drafters, without a prior.
      texts: recorded texts, each with the model that said them.

    Raises:
      ValueError: the mix has a prior already, or there is no text.
    """
    if mix.prior is not None:
        raise ValueError("the mix has a prior, which would be counted as well; give it without")
    counting = dataclasses.replace(mix, memory=1.0)
    guess = counting.init_rates(1)
    trials, successes = np.zeros(guess.trials.shape[1:]), np.zeros(guess.trials.shape[1:])
    recorded = list(texts)
    if not recorded:
        raise ValueError("there are no texts to count on")
    for lm, recording in recorded:
        rates = state_after(recording, counting, lm).rates
        trials += np.asarray(rates.trials - guess.trials)[0]
        successes += np.asarray(rates.successes - guess.successes)[0]
    rate = (successes + GUESSED_TRIALS * np.asarray(guess.mean)[0]) / (trials + GUESSED_TRIALS)
    rate = np.clip(rate, 10.0**-DIGITS, 1 - 10.0**-DIGITS)
    return tuple(
        tuple(tuple(tuple(round(float(value), DIGITS) for value in row) for row in table) for table in source)
        for source in rate
    )
