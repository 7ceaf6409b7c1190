"""A whole round of collection with the small transformer: plain answers in, readable shards out."""

import dataclasses

import pytest
from small_trajectories import FORWARD, greedy_texts
from small_transformer import small_transformer

from jaxspec.train import on_policy
from jaxspec.train.on_policy import RoundSettings, on_policy_round
from jaxspec.train.shards import read_shards

PROMPTS = [[3, 1, 4], [9, 2], [5, 3, 5, 8], [2], [6, 6, 1]]
SETTINGS = RoundSettings(block=4, blocks=2, lanes=2, shard_prompts=3, seed=7, repeats=100)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("round")
    return folder, on_policy_round(small_transformer(), FORWARD, PROMPTS, folder, SETTINGS)


def test_a_round_holds_the_models_own_greedy_answers(finished):
    folder, manifest = finished
    lm = small_transformer()
    assert [shard.examples for shard in manifest.shards] == [3, 2]
    _, data = read_shards(folder, lm.config.vocabulary)
    for row, text in enumerate(greedy_texts(lm, PROMPTS, 8)):
        prompt, end = len(PROMPTS[row]), len(PROMPTS[row]) + 8
        assert data.tokens[row, :end].tolist() == text[:end].tolist()
        assert (data.prompt_length[row], data.length[row]) == (prompt, end)
        assert data.states[row, :, -1].reshape(-1).tolist() == text[prompt:end].tolist()
    assert data.converged.all() and (data.count > 1).any()


def test_an_interrupted_round_goes_on(finished, tmp_path, monkeypatch):
    whole = {path.name: path.read_bytes() for path in finished[0].iterdir()}
    calls, make = [], on_policy._shard

    def interrupted(*arguments):
        calls.append(arguments[3])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(on_policy, "_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        on_policy_round(small_transformer(), FORWARD, PROMPTS, tmp_path, SETTINGS)
    seen = []
    on_policy_round(
        small_transformer(),
        FORWARD,
        PROMPTS,
        tmp_path,
        dataclasses.replace(SETTINGS, lanes=2),
        progress=lambda *pair: seen.append(pair),
    )
    assert calls == [0, 3, 3] and seen == [(1, 2), (2, 2)]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_other_weights_prompts_or_settings_need_another_folder(finished):
    folder, _ = finished
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="holds trajectories with model="):
        on_policy_round(small_transformer(seed=1), FORWARD, PROMPTS, folder, SETTINGS)
    with pytest.raises(ValueError, match="holds trajectories with settings="):
        on_policy_round(small_transformer(), FORWARD, [*PROMPTS[:4], [1, 2]], folder, SETTINGS)
    with pytest.raises(ValueError, match="holds trajectories with settings="):
        on_policy_round(small_transformer(), FORWARD, PROMPTS, folder, dataclasses.replace(SETTINGS, seed=8))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_bad_rounds_are_refused(tmp_path):
    lm = small_transformer()
    with pytest.raises(ValueError, match="200 blocks of 4 tokens take 804 tokens, but small reads 512"):
        on_policy_round(lm, FORWARD, PROMPTS, tmp_path, dataclasses.replace(SETTINGS, blocks=200))
    with pytest.raises(ValueError, match="no prompts to answer"):
        on_policy_round(lm, FORWARD, [], tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="lanes=0 is below 1"):
        RoundSettings(lanes=0)
    with pytest.raises(ValueError, match="seed=-1 is outside"):
        RoundSettings(seed=-1)
    assert not list(tmp_path.iterdir())
