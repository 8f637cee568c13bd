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
# # How many features fit into a dimension, and what does a sparse autoencoder get back?
#
# A model has more to represent than it has dimensions. When is it worth storing two features in one dimension, and which shapes result?
# We train toys (Elhage et al. 2022) in which every feature is known: sparse features squeezed through a few dimensions and read
# back through a ReLU. All densities and seeds of a study are one batched product, so each takes seconds. Then we ask a TopK
# autoencoder for the features, and compare its answer with random directions.

# %%
import os
from pathlib import Path

import numpy as np
import plotly.express as px
import plotly.graph_objects as go
from superposition import ToyConfig, border_distance, ideal_phase, map_phases, random_geometry, recover_toy, train_toys

from interp import t_interval

root = Path(os.environ.get("INTERP_WORKSPACE", "../workspace")) / "notebooks" / "superposition"

# %% [markdown]
# ## Five features, two dimensions
#
# Twelve toys at each density, equal importance. What a feature has to itself is its dimensionality
# $D_i = |w_i|^2 / \sum_j (\hat w_i \cdot w_j)^2$: 1 is a dimension of its own, 1/2 an antipodal pair, 2/5 a pentagon.

# %%
densities = (0.03, 0.05, 0.1, 0.2, 0.4, 0.8)
toys = train_toys(ToyConfig(steps=1200, lr=2e-2), densities=densities, n_seeds=12, seed=0)
for density in densities:
    group = toys.at(density)
    geometries = [group.geometry(toy) for toy in range(12)]
    shapes = [" + ".join(f"{n} {name}" for name, n in geometry.polytopes().items()) for geometry in geometries]
    counts = ", ".join(f"{shapes.count(shape)}x {shape}" for shape in dict.fromkeys(shapes))
    print(f"density {density:4}: loss {float(group.unexplained.mean()):.2f} of a constant's; {counts}")

# %%
rare = toys.at(0.05)
best, directions = rare.geometry(), rare.W[rare.loss.argmin()]
arrows = [
    go.Scatter(x=[0, x], y=[0, y], name=f"feature {i}", mode="lines+markers")
    for i, (x, y) in enumerate(directions.tolist())
]
go.Figure(arrows, {"title": "density .05, lowest loss", "width": 480, "height": 420, "yaxis": {"scaleanchor": "x"}})

# %%
labels = {"x": "feature that is on", "y": "feature read", "color": "read as the other feature"}
px.imshow(
    directions @ directions.T, labels=labels, color_continuous_scale="RdBu", color_continuous_midpoint=0, height=380
)

# %%
rows = [
    {"density": density, "dimensionality": float(value)}
    for density in densities
    for toy in range(12)
    for value in toys.at(density).geometry(toy).dimensionality
]
figure = px.scatter(rows, x="density", y="dimensionality", log_x=True, opacity=0.45, height=360)
for name, level in {
    "dedicated": 1,
    "triangle 2/3": 2 / 3,
    "pair 1/2": 1 / 2,
    "pentagon 2/5": 2 / 5,
    "dropped": 0,
}.items():
    figure.add_hline(level, line_dash="dot", line_width=1, annotation_text=name)
figure

# %% [markdown]
# The sum of the dimensionalities is at most the rank, and equals it only where directions balance (tight frames; Scherlis et al. 2022). Random
# directions do not:

# %%
tightness, regular = random_geometry(5, 2)
totals = [rare.geometry(toy).total for toy in range(12)]
print(f"trained: sum of D {min(totals):.4f} to {max(totals):.4f} of 2")
low, high = (2 * end for end in tightness[1:])
print(f"random:  {2 * tightness.estimate:.2f} on average ({low:.2f} to {high:.2f}); named shapes in {regular:.0%}")

# %% [markdown]
# ## When is superposition worth it?
#
# Two features in one dimension: keep one, keep the other, or put both on the line in opposite directions. The three have losses in
# closed form, so the diagram is known before training. Sixteen toys train for each cell; the best is shown.

# %%
grid_d, grid_i = tuple(np.geomspace(0.03, 1, 7).tolist()), tuple(np.geomspace(0.1, 10, 7).tolist())
phases = map_phases(grid_d, grid_i, ToyConfig(n_features=2, d_hidden=1, steps=500, batch_size=96, lr=3e-2), n_seeds=16)
figure = px.scatter(
    phases,
    x="importance",
    y="density",
    color="phase",
    log_x=True,
    log_y=True,
    hover_data=["norm", "shared", "agreement"],
)
figure.update_traces(marker={"symbol": "square", "size": 26})

# %%
clear = [cell for cell in phases if border_distance(cell.density, cell.importance) > 0.25]
agree = sum(cell.phase == ideal_phase(cell.density, cell.importance) for cell in clear)
control = map_phases(
    (0.03, 0.3), (0.3, 3.0), ToyConfig(n_features=2, d_hidden=1, steps=500, activation="linear"), n_seeds=4
)
linear = {cell.phase for cell in control}
print(
    f"{agree} of {len(clear)} cells away from the borders are as the closed form says; without the ReLU: {sorted(linear)}"
)

# %% [markdown]
# ## What does a TopK autoencoder get back?
#
# 40 features in 12 dimensions. The autoencoder sees the hidden layer alone, has 40 latents, and keeps as many active as features
# are on. MCC is the mean cosine of matched directions, F1 says how well a latent detects its feature; random directions as null.

# %%
wide = train_toys(
    ToyConfig(n_features=40, d_hidden=12, steps=1200, lr=1e-2, batch_size=256), densities=(0.01, 0.1), n_seeds=4
)
recovered = {
    d: [recover_toy(wide, toy, root / f"toy-{toy}", tokens=150_000, seed=toy) for toy in chosen]
    for d, chosen in ((0.01, (0, 1, 2, 3)), (0.1, (4, 5, 6, 7)))
}
mcc, f1 = (
    {d: t_interval(np.array([getattr(run.trained, score) for run in runs])) for d, runs in recovered.items()}
    for score in ("mcc", "f1")
)
chance = t_interval(np.array([run.untrained.mcc for runs in recovered.values() for run in runs]))
f1_chance = {d: np.mean([run.untrained.f1 for run in runs]) for d, runs in recovered.items()}
for d, runs in recovered.items():
    share = np.mean([run.one_at_a_time for run in runs])
    print(
        f"density {d}: MCC {mcc[d][0]:.2f} ({mcc[d][1]:.2f} to {mcc[d][2]:.2f}), F1 {f1[d][0]:.2f} ({f1[d][1]:.2f} to {f1[d][2]:.2f}; "
        f"random {f1_chance[d]:.2f}), k {runs[0].k}; {share:.0%} of rows have one feature on"
    )
print(f"random directions: MCC {chance[0]:.2f} ({chance[1]:.2f} to {chance[2]:.2f})")

# %% [markdown]
# ## The answer

# %%
pentagons = sum(rare.geometry(toy).polytopes() == {"pentagon": 1} for toy in range(12))
assert best.polytopes() == {"pentagon": 1} and pentagons >= 10
assert all(abs(total - 2) < 1e-3 for total in totals) and tightness.high < 1 and regular == 0
assert agree == len(clear) and linear == {"not represented", "dedicated"}
assert f1[0.01][1] > f1[0.1][2] and min(mcc[0.01][1], mcc[0.1][1]) > chance[2]
print(
    f"Five rare features share two dimensions as a pentagon in {pentagons} of 12 toys, 2/5 of a dimension each; at density .2 "
    f"as antipodal pairs too. Their dimensionalities use up the rank, which random directions never do.\n"
    f"Superposition pays where features are rare, exactly where three losses in closed form say so ({agree} of {len(clear)} cells); "
    f"a linear toy never does it.\nOf 40 features in 12 dimensions a TopK autoencoder finds the directions (mean cosine {mcc[0.01][0]:.2f} "
    f"at density .01, {mcc[0.1][0]:.2f} at .1; random directions {chance[0]:.2f}), but says less well when they are on the more are on "
    f"at once: F1 {f1[0.01][0]:.2f} and {f1[0.1][0]:.2f}.\nWhat this is not: a claim about language models, whose features are "
    "neither independent nor known."
)

# %% [markdown]
# ## Exercises
#
# 1. At which density do most toys stop being pentagons? To check: train at densities between those of the table.
# 2. Give the toys 3 hidden dimensions. Which shapes appear? To check: the sum of the dimensionalities should be 3.
# 3. Give the autoencoder more latents than features. Does F1 fall? To check: `random_geometry` and the random directions stay the null.
