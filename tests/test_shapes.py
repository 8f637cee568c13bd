"""Shapes in signatures are checked at every call, in tests only, in the modules that `shapes.py` lists."""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from shapes import SHAPES_CHECKED, STRINGS_ONLY


def test_shapes_in_signatures_are_checked_while_testing():
    from interp.models.passes import token_losses

    logits, tokens = torch.zeros(2, 8, 5), torch.zeros(2, 8, dtype=torch.long)
    assert token_losses(logits, tokens).shape == (2, 7)
    for wrong in (tokens[:1], tokens[:, :3], tokens.float()):
        with pytest.raises(TypeCheckError):
            token_losses(logits, wrong)


def test_wrong_shapes_are_refused_while_testing():
    from interp.circuits.head_kinds import score_pattern
    from interp.patching.paths import PathPatching

    pattern, weights = torch.zeros(2, 3, 4, 4), torch.zeros(2, 16, 5)
    assert score_pattern(pattern, weights).shape == (2, 3, 5)
    for wrong in (weights[:, :4], weights[:1], weights.long()):
        with pytest.raises(TypeCheckError):
            score_pattern(pattern, wrong)

    effect = np.zeros(3)
    assert len(PathPatching(effect, effect, None).to_records()) == 3
    for wrong in (np.zeros(2), np.zeros((3, 1)), np.zeros(3, np.float32)):
        with pytest.raises(TypeCheckError):
            PathPatching(effect, wrong, None)


def test_modules_whose_shapes_are_checked_exist_and_have_shapes():
    for name in SHAPES_CHECKED:
        spec = find_spec(name)
        assert spec is not None, name
        assert "from jaxtyping import" in Path(str(spec.origin)).read_text(), name


def test_modules_without_torch_state_their_shapes_as_strings():
    for name in STRINGS_ONLY:
        source = Path(str(getattr(find_spec(name), "origin", ""))).read_text()
        assert "from jaxtyping import" in source.partition("if TYPE_CHECKING:")[2], name
        assert not re.search(r"(: |-> )\"Tensor( \| None)?\"", source), name
        assert name not in SHAPES_CHECKED
