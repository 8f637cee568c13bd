"""What can be mapped: every source is what it says, to the number."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp.artifacts import Table, save_artefact
from interp.atlas.neighbours import nearest_neighbours
from interp.atlas.sources import (
    head_circuit_source,
    head_score_source,
    inner_products,
    recording_source,
    square_root_of,
    unembedding_source,
)
from interp.circuits.head_kinds import KINDS
from interp.circuits.head_scores import HeadScore, HeadScores, HeadSettings
from interp.circuits.head_weights import Factored, HeadWeights
from interp.models.adapter import token_strings
from interp.models.loading import load_model
from interp.recording.store import Recording, context_of
from tests.interp.recorder import SETTINGS, record_all


@pytest.fixture(scope="module")
def model():
    return load_model("small:attn-only-2l")


def test_unembeddings_are_what_moves_the_logits(model):
    source = unembedding_source(model, "m", weight_hash="h")
    assert source.vectors.shape == (model.cfg.d_vocab, model.cfg.d_model)
    torch.testing.assert_close(source.vectors.mean(0), torch.zeros(model.cfg.d_model), atol=1e-6, rtol=0)
    # Along a row the token's own logit rises more than the mean of all does.
    rows = source.vectors @ HeadWeights(model).unembedding().float()
    assert (rows.diagonal() > 0).all()


@pytest.mark.parametrize("circuit", ["ov", "qk"])
def test_heads_are_as_alike_as_their_matrices(model, circuit):
    source = head_circuit_source(model, "m", circuit, weight_hash="h")
    weights = HeadWeights(model)
    heads = weights.residual.all_heads()
    dense = torch.stack([getattr(weights, circuit)(head).dense().flatten() for head in heads])
    torch.testing.assert_close(
        source.vectors.double() @ source.vectors.double().T, dense @ dense.T, atol=1e-3, rtol=1e-4
    )
    truth = nearest_neighbours(dense.float(), 3)
    assert torch.equal(nearest_neighbours(source.vectors, 3).indices, truth.indices)
    assert source.labels == [str(head) for head in heads]


def test_a_head_and_its_copy_are_neighbours():
    generator = torch.Generator().manual_seed(0)

    def drawn() -> Factored:
        left, right = (torch.randn(*shape, generator=generator).double() for shape in ((12, 3), (3, 12)))
        return Factored(left, right)

    circuits = [drawn() for _ in range(6)]
    mixed = torch.randn(3, 3, generator=generator).double()
    circuits.append(Factored(circuits[2].left @ mixed, torch.linalg.inv(mixed) @ circuits[2].right))  # the same product
    near = nearest_neighbours(square_root_of(inner_products(circuits)), 1)
    assert int(near.indices[6]) == 2
    assert float(near.distances[6]) < 1e-5


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    """Return an artefact of head scores, with one induction head, L1H1."""
    rows = [
        HeadScore(layer=i // 3, head=i % 3, kind=kind, score=0.04 * i, low=0.04 * i, high=0.04 * i, null=0.0,
                  null_high=0.0, above_null=kind == "induction" and i == 4)
        for kind in KINDS for i in range(6)
    ]  # fmt: skip
    settings = HeadSettings(
        model="m", weight_hash="0", prompts=8, seeds=(0,), lags=(8, 20), context_length=41, bos=None
    )
    scores = HeadScores(settings=settings, scores=Table.of(HeadScore, rows), per_prompt=None)
    return save_artefact(scores, tmp_path / "h").folder


def test_heads_by_their_scores_carry_their_verdicts(heads: Path):
    source = head_score_source(heads)
    assert source.labels == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1 induction", "L1H2"]
    assert source.groups[4] == "induction"
    torch.testing.assert_close(source.vectors.mean(0), torch.zeros(len(KINDS)), atol=1e-6, rtol=0)


def test_activations_come_with_their_text(model, tmp_path: Path):
    place = "blocks.1.attn.hook_z"
    record_all(tmp_path / "rec", config=replace(SETTINGS, tokens=600))
    recording = Recording(tmp_path / "rec")
    drawn = (recording_source(recording, model, hook_point=place, max_points=40, seed=seed) for seed in (3, 3, 4))
    source, again, other = drawn
    assert source.items.tolist() == again.items.tolist() != other.items.tolist()
    assert len(set(source.items.tolist())) == 40
    assert len(source.labels) == len(source.contexts) == len(source.groups) == 40
    assert source.hook_point == place
    labels = {document.document: document.label for document in recording.documents()}
    for row, label, context, group in zip(
        source.items.tolist(), source.labels, source.contexts, source.groups, strict=True
    ):
        columns, at = context_of(recording, row)
        assert label == token_strings(model, columns.tokens[at : at + 1].long())[0]
        assert label in context
        assert group == labels[int(columns.document[at])]
    torch.testing.assert_close(source.vectors, recording.read_rows(place, torch.from_numpy(source.items).long()))
    some = source.chosen(torch.tensor([5, 7]))
    assert (some.contexts, some.groups) == ([source.contexts[i] for i in (5, 7)], [source.groups[i] for i in (5, 7)])


def test_an_sae_s_encoder_is_another_map_than_its_decoder():
    from saes.features.sources import sae_source
    from tests.saes.placed import random_sae

    sae = random_sae("topk", 0)
    reads, writes = (sae_source(sae, "s", side=side) for side in ("encoder", "decoder"))
    assert (reads.source, writes.source) == ("encoder:s", "sae:s")
    torch.testing.assert_close(reads.vectors, sae.W_enc.T.float())
    torch.testing.assert_close(writes.vectors, sae.W_dec.float())
