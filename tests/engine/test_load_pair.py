"""A pair of models from two names."""

import jax
import numpy as np
import pytest

from jaxspec.engine.load import load_pair
from jaxspec.models.self_draft import self_draft


def test_a_draft_may_be_a_version_of_its_target(tiny_model_folder) -> None:
    folder = str(tiny_model_folder)
    draft, target = load_pair("self:int3", folder, dtype="float32")
    expected = self_draft(target, "int3")
    assert draft.name == expected.name == f"{folder} int3" and target.name == folder
    jax.tree.map(np.testing.assert_array_equal, draft.params, expected.params)


def test_a_draft_may_be_a_model_of_its_own(tiny_model_folder) -> None:
    draft, target = load_pair(str(tiny_model_folder), str(tiny_model_folder), dtype="float32")
    assert draft.config == target.config and draft.params is not target.params


def test_versions_that_are_unknown_are_refused(tiny_model_folder) -> None:
    with pytest.raises(ValueError, match="self draft 'half' is none of"):
        load_pair("self:half", str(tiny_model_folder))
