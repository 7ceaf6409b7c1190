"""Draft and target on devices of their own say, trace and count what they do on one device."""

import dataclasses

import jax
import pytest
from toy_model import toy_model
from toy_steps import CAP, CUT, DRAFT, NEW, POLICIES, PROMPTS, SCORER, TARGET

from jaxspec import drafters, steps
from jaxspec.conformal import adaptive_conformal, fixed
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps.apart import draft_slice, merge, target_slice

REUSE = steps.rejected_step(4, step_tokens=CAP)


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


def on(lm: LanguageModel, *devices: int) -> LanguageModel:
    """The model on the devices of these numbers."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[devices[0]])
    if len(devices) > 1:
        mesh = jax.sharding.Mesh([jax.devices()[d] for d in devices], ("model",))
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return dataclasses.replace(lm, params=jax.device_put(lm.params, place))


def solve(policy, draft=DRAFT, target=TARGET, prompts=PROMPTS, **settings):
    return steps.solve(
        draft,
        target,
        policy,
        prompts,
        segmentation=CUT,
        **{"max_new_tokens": NEW, "cache": 128, "lanes": 4, **settings},
    )


def by_likelihood(on_escalation: str):
    a1 = steps.a1(samples=1, turns=64, chunk=CAP, calibrator=fixed(-2.0))
    return dataclasses.replace(a1, on_escalation=on_escalation)


@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        (POLICIES["replace"](0.5), {"target_lanes": 2, "target_drafter": REUSE}),
        slow(POLICIES["continue"](0.5), {"exchange_ticks": 3, "slice_ticks": 7}),
        slow(POLICIES["compare"](0.1), {"target_lanes": 1, "lanes": 3, "target_drafter": drafters.suffix(width=4)}),
        slow(by_likelihood("continue"), {"samples": 2, "temperature": 1.5, "exchange_ticks": 3}),
        slow(by_likelihood("replace"), {"exchange_ticks": 2, "target_drafter": REUSE}),
        slow(steps.target_only(), {"exchange_ticks": 5, "drafter": drafters.context_ngram(width=5)}),
        slow(steps.draft_only(), {}),
    ],
    ids=["replace", "continue", "compare", "likelihood", "likelihood, replace", "target only", "draft only"],
)
def test_texts_steps_and_work_equal_those_on_one_device(policy, settings: dict) -> None:
    one_device = {name: value for name, value in settings.items() if name != "exchange_ticks"}
    together = solve(policy, **one_device)
    apart = solve(policy, on(DRAFT, 0), on(TARGET, 1), **settings)
    assert apart.ids == together.ids
    for ours, theirs in zip(apart.problems, together.problems, strict=True):
        assert str(ours.steps) == str(theirs.steps)  # scores that are no numbers equal themselves in print alone
        if settings.get("target_drafter", REUSE) == REUSE:  # others may have read less of the draft's text
            assert ours.work == theirs.work
        assert ours.work["target_tokens"] == theirs.work["target_tokens"]
    statistics = apart.statistics
    assert sum(statistics.lane_ticks.values()) == settings.get("lanes", 4) * statistics.ticks
    assert statistics.most_with_target <= settings.get("target_lanes", settings.get("lanes", 4))
    assert (statistics.decisions, statistics.escalations) == (
        together.statistics.decisions,
        together.statistics.escalations,
    )


@pytest.mark.slow
def test_a_draft_model_of_the_target_forgets_what_was_discarded_on_the_other_side() -> None:
    """A copy of the target is right about all it says, so passes tell whether it has read the text as it is."""
    policy, target = POLICIES["compare"](0.1), on(TARGET, 1)
    settings = dict(temperature=3.0, target_drafter=drafters.draft_model(target, 2))
    found = solve(policy, on(DRAFT, 0), target, **settings)
    expected = solve(policy, DRAFT, TARGET, **settings | {"target_drafter": drafters.draft_model(TARGET, 2)})
    assert found.ids == expected.ids
    calls = [[solved.work["target_calls"] for solved in each.problems] for each in (found, expected)]
    assert calls[0] == calls[1]


@pytest.mark.slow
def test_both_sides_work_in_the_same_ticks() -> None:
    """What takes turns on one device takes fewer ticks where both models pass in each of them."""
    apart = solve(POLICIES["replace"](0.5), on(DRAFT, 0), on(TARGET, 1)).statistics
    assert apart.draft_passes + apart.target_passes > apart.ticks


@pytest.mark.slow
def test_a_mesh_may_hold_the_target() -> None:
    policy = POLICIES["replace"](0.5)
    assert solve(policy, on(DRAFT, 0), on(TARGET, 1, 2)).ids == solve(policy).ids


@pytest.mark.slow
def test_what_a_calibrator_learns_comes_back() -> None:
    calibrator = adaptive_conformal(reject_rate=0.4, gamma=0.05, groups=64)
    policy = dataclasses.replace(by_likelihood("continue"), calibrator=calibrator)
    first = solve(policy, on(DRAFT, 0), on(TARGET, 1))
    asked = first.statistics.decisions
    assert asked > 20
    again = solve(policy, on(DRAFT, 0), on(TARGET, 1), calibrator=first.calibrator)
    assert again.statistics.decisions > 20
    learned, more = (jax.tree.leaves(solution.calibrator) for solution in (first, again))
    assert not all(bool((a == b).all()) for a, b in zip(learned, more, strict=True))


def test_nothing_is_compiled_again_and_nothing_moves_unasked() -> None:
    policy, places = POLICIES["replace"](0.5), (on(DRAFT, 0), on(TARGET, 1))
    solve(policy, *places, prompts=PROMPTS[:3], seed=1, temperature=1.0)
    programs = (draft_slice, target_slice, merge)
    before = [program._cache_size() for program in programs]
    with jax.transfer_guard_device_to_device("disallow"):
        solve(policy, *places, prompts=PROMPTS[3:9], seed=2, temperature=0.7)
    assert [program._cache_size() for program in programs] == before


@pytest.mark.parametrize(
    ("draft", "target", "settings", "said"),
    [
        ((0,), (1,), {"exchange_ticks": 0}, "exchange_ticks=0 is below 1"),
        ((0,), (0, 1), {}, "share 1 of their devices"),
        ((0,), (1,), {"lockstep": True}, "moves lanes in lockstep"),
    ],
)
def test_device_sets_that_do_not_fit_are_refused(draft, target, settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        solve(steps.rsd(0.5, SCORER), on(DRAFT, *draft), on(TARGET, *target), **settings)


def test_a_scoring_model_lives_with_the_draft() -> None:
    router = toy_model(3)
    router = dataclasses.replace(router, config=dataclasses.replace(router.config, outputs=2))
    with pytest.raises(ValueError, match="lives on other devices than the draft"):
        solve(steps.arbitrage(0.5), on(DRAFT, 0), on(TARGET, 1), scorer=on(router, 1))
