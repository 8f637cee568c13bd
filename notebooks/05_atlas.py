# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How much of a vocabulary survives on a map?
#
# A map of token embeddings is where many people start looking. It puts 576 dimensions into two, and says nothing of what it
# lost. We map 6,000 tokens of SmolLM2-135M, measure what the map keeps beside a map of noise, look at where it is true and
# where it is not, add tokens without moving any, and follow the tokens of one text through the layers in one frame.

# %%
import os
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch

from dashboard import atlas_view
from dashboard.figures import colours_of, styled
from interp import (
    MapSettings,
    RecordConfig,
    Recording,
    Workspace,
    build_atlas,
    build_series,
    embedding_source,
    extend_atlas,
    load_model,
    open_corpus,
    place_points,
    record,
    recording_source,
    save_artefact,
    weight_hash,
)

root = Path(os.environ.get("INTERP_WORKSPACE", "../workspace")) / "notebooks" / "atlas"
workspace = Workspace(root, create=True)
light = colours_of("light")
model = load_model("smollm2-135m")
everything = embedding_source(model, "smollm2-135m", weight_hash=weight_hash(model))
drawn = torch.randperm(len(everything.labels), generator=torch.Generator().manual_seed(0))
tokens, left_out = everything.chosen(drawn[:6000].sort().values), everything.chosen(drawn[6000:6300].sort().values)


def build(name, source, **settings):
    made = build_atlas(source, MapSettings(**settings))
    return save_artefact(made, workspace.path("atlas", name), parents=source.parents, seed=0, overwrite=True)


# %% [markdown]
# ## A map, and a map of nothing
#
# The same tokens by our layout and by two principal components; and noise: vectors with the same mean and covariance as the
# embeddings, in which no token is like another for any reason. Whatever the map of noise keeps, a map keeps for nothing.

# %%
generator = torch.Generator().manual_seed(1)
centred = tokens.vectors - tokens.vectors.mean(0)
values, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
noise = torch.randn(centred.shape, generator=generator) * values.clamp(min=0).sqrt() @ axes.T + tokens.vectors.mean(0)

maps = {
    "umap (ours)": build("tokens", tokens),
    "two principal components": build("tokens-pca", tokens, method="pca"),
    "umap of noise": build("noise", type(tokens)(**{**vars(tokens), "vectors": noise, "source": "file:noise"})),
}
for name, made in maps.items():
    q = made.quality
    print(
        f"{name:26} keeps {q.recall:.3f} of 15 true neighbours, trustworthiness {q.trustworthiness:.3f}, "
        f"continuity {q.continuity:.3f}, triplets {q.triplets:.3f}"
    )

# %% [markdown]
# ## Look
#
# Drag, zoom, hover. Colour by *kept* to see where the map is true. Regions are named by what sets their tokens apart.

# %%
atlas_view(workspace, "tokens", colour="kept")

# %%
made = maps["umap (ours)"]
kept = made.points.columns("kept")["kept"]
counts, edges = np.histogram(kept, bins=np.linspace(0, 1, 16))
figure = styled(
    go.Figure(go.Bar(x=(edges[:-1] + edges[1:]) / 2, y=counts, marker_color=light.accent)), light, height=300
)
figure.update_xaxes(title_text="share of a token's 15 true neighbours that are kept")
figure.update_yaxes(title_text="tokens")
figure

# %% [markdown]
# ## Neighbours: the list is true, the map is not
#
# For a few tokens that have a near neighbour: the list from the full space, and which of it the map kept.

# %%
positions, labels, near = made.positions, tokens.labels, made.neighbours.rows()
closest = np.array([row.cosines[0] for row in near])
for i in np.argsort(-closest, kind="stable")[100:1500:200]:
    true = near[i].neighbours[:6]
    on_map = np.argsort(np.linalg.norm(positions - positions[i], axis=1), kind="stable")[1:16]
    marks = [f"{labels[j]!r}{'' if j in on_map else ' (lost)'}" for j in true]
    print(f"{labels[i]!r:18} {', '.join(marks)}")

# %% [markdown]
# ## New tokens, and none moves
#
# 300 tokens that were not mapped are placed one by one. Where do they land: among their true neighbours? On a shuffled map each
# still lands beside one of them, but the others are elsewhere.

# %%
placed = place_points(left_out.vectors, tokens.vectors, positions, 1 - closest)


def found_again(where, base):
    on_map = np.linalg.norm(where[:, None] - base[None], axis=2).argsort(axis=1)[:, :15]
    true = placed.neighbours.indices.numpy()
    return np.mean([len(set(a) & set(b)) / 15 for a, b in zip(on_map, true, strict=True)])


shuffled = np.random.default_rng(0).permutation(positions).astype(np.float32)
lost = place_points(left_out.vectors, tokens.vectors, shuffled, 1 - closest)
new_recall, null_recall = found_again(placed.positions, positions), found_again(lost.positions, shuffled)
print(f"new tokens lie among {new_recall:.3f} of their true neighbours; on a shuffled map {null_recall:.3f}")
both = extend_atlas(left_out, tokens, made)
stayed = np.array_equal(both.positions[: len(labels)], positions)
print("old tokens stayed where they were:", stayed)

# %% [markdown]
# ## Through the layers, in one frame
#
# The same 1,500 tokens of a text after blocks 0, 9 and 19. Each map starts from the one before and is held to it, so what
# moves has changed; how far points move when nothing changes is the null, and the share of neighbours that stay needs no map.

# %%
places = [f"blocks.{layer}.hook_resid_post" for layer in (0, 9, 19)]
if "layers" not in workspace.names("recording"):
    folder, config = workspace.path("recording", "layers"), RecordConfig(tokens=4_000, context_length=64)
    record(model, open_corpus("docstrings"), folder, config, hook_points=places)
recording = Recording(workspace.path("recording", "layers"))
layers = [recording_source(recording, model, hook_point=place, max_points=1500) for place in places]
series = save_artefact(build_series(layers, places), workspace.path("atlas", "layers"), seed=0, overwrite=True)
print("\n".join(series.details()))
print("moved when nothing changes (median, 95 %):", series.moved_null)

# %%
atlas_view(workspace, "layers")

# %% [markdown]
# ## Answer
#
# A map of the vocabulary keeps a small part of the neighbours: several times what a map of noise keeps, far more than two
# principal components, and far from all. So read regions, and take neighbours from the list. It is true in some places and not
# in others, and says where. New tokens find their place. Through the layers most neighbourhoods change, and the map shows more
# movement than it would for nothing.

# %%
ours, pca, null = (atlas.quality.recall for atlas in maps.values())
assert ours > 3 * pca
assert ours > 2 * null
assert ours < 0.5, "most neighbours are lost on any map of these"
assert kept.std() > 0.1
assert new_recall > 1.8 * null_recall
assert stayed
_, second, third = series.frame_quality
assert min(second.moved, third.moved) > series.moved_null.median
assert second.stayed < 0.9

# %% [markdown]
# ## Exercises
#
# 1. Colour the map by another column. Do the regions still stand out? To check: regions come from density, not from colour.
# 2. Take the 15 nearest neighbours of one token in the full space, and find them on the map. How many are near? To check: the mean over
#    all tokens is the recall that the map states.
# 3. Compute `build_series` of the layers in another order. To check: `stayed` needs no map, so that only the pairs of layers change it.
