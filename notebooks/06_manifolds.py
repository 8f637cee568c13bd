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
# # Does a language model keep the days of the week on a circle?
#
# Larger models are said to do so. Seven words can look like a circle in many ways, and a line or a horseshoe has a perfect order
# too. So we first test the test on shapes that we made ourselves, then ask SmolLM2-135M for weekdays, number words and colours, and last turn
# a word around its plane to see whether the model then answers with another day.
#
# What is decided before looking: the sentences; which half of them chooses the layer and which half judges; that distances in the
# whole space count, not those on a chosen plane; that words are turned after block 7 of 30.

# %%
import numpy as np
from plotly.subplots import make_subplots

from dashboard.figures import colours_of, plot, styled
from interp import (
    circle_test,
    find_concepts,
    find_shapes,
    fit_plane,
    load_model,
    read_words,
    rotate_words,
    untrained_model,
)

light = colours_of("light")
rng = np.random.default_rng(0)

# %% [markdown]
# ## Shapes that we know
#
# Twelve items on a circle, along a horseshoe, on a line, and nowhere, in 576 dimensions with noise; then four items on a perfect circle.


# %%
def planted(n, arc):
    angles = np.deg2rad(np.arange(n) * (arc / n if arc == 360 else arc / (n - 1)))
    flat = np.stack([np.cos(angles), np.sin(angles)], axis=1) if arc else np.zeros((n, 2))
    frame, _ = np.linalg.qr(rng.standard_normal((576, 2)))
    return flat @ frame.T + 0.02 * rng.standard_normal((n, 576))


known = {
    name: circle_test(planted(n, arc), n_draws=2000)
    for name, n, arc in (("circle", 12, 360), ("horseshoe", 12, 200), ("nothing", 12, 0), ("four items", 4, 360))
}
for name, test in known.items():
    print(f"{name:10} {test}\n")

# %% [markdown]
# A horseshoe is called a line: an open curve. Four items have three orders, so even a perfect circle of them is one in three by
# chance, and the verdict is refused.
#
# ## SmolLM2 reads its words
#
# Sixteen sentences that end with the word, read at five hook points. Each list on its own plane, in sentences that did not fit it.

# %%
model = load_model("smollm2-135m")
places = ["hook_embed", *(f"blocks.{layer}.hook_resid_post" for layer in (3, 7, 14, 21))]
names = ("weekdays", "number words", "colours")
words = {concept.name: read_words(model, concept, hook_points=places) for concept in find_concepts(names)}
shapes = find_shapes(words)
for shape in shapes.values():
    print(f"{shape}\n")

# %%
figure = make_subplots(rows=1, cols=3, subplot_titles=[f"{name}: {shape.verdict}" for name, shape in shapes.items()])
for at, (shape, colour) in enumerate(zip(shapes.values(), light.categories), 1):
    x, y = shape.coordinates[1].T
    joined = "markers+text" if shape.verdict in ("cluster", "nothing") else "lines+markers+text"
    figure.add_scatter(
        x=x, y=y, text=shape.words, mode=joined, textposition="top center", line={"color": colour}, row=1, col=at
    )
    figure.update_xaxes(range=[x.min() - 0.25 * np.ptp(x), x.max() + 0.25 * np.ptp(x)], row=1, col=at)
styled(figure, light, height=380)
figure.update_xaxes(showticklabels=False).update_yaxes(showticklabels=False)
figure.update_layout(margin_t=36)

# %% [markdown]
# Colours know nothing of hue, yet they lie together. Numbers are a line. Weekdays keep their order; whether it closes, seven
# items this noisy cannot say.
#
# ## Is there anything of this in an untrained model?

# %%
twin = untrained_model(model, 0)
untrained = find_shapes(
    {concept.name: read_words(twin, concept, hook_points=places[1:3]) for concept in find_concepts(names)}
)
for shape in untrained.values():
    print(f"{shape}\n")

# %% [markdown]
# ## Turn a day into another
#
# *Today is Monday. Tomorrow is*: at *Monday*, after block 7, the activation is turned in the weekdays' plane by one to six days' worth of
# angle. If the model reads the day there, the logit of another day rises above the others.

# %%
place = "blocks.7.hook_resid_post"
plane = fit_plane(words["weekdays"].points(place, half=0))
turned = rotate_words(model, words["weekdays"], plane, place, n_random=2)
print(turned)
plot(turned)

# %% [markdown]
# ## The answer

# %%
weekdays, numbers, colours = (shapes[name] for name in names)
assert [known[name].shape for name in known] == ["circle", "line", "unordered", "undecided"]
assert weekdays.order.p_circular < 0.05 / 6, "the days' order is in their distances"
assert numbers.verdict == "line", numbers.reason
assert colours.verdict in ("cluster", "nothing"), colours.reason
assert {shape.verdict for shape in untrained.values()} == {"nothing"}
closed = "a circle" if weekdays.verdict == "circle" else f"not shown to be a circle (verdict: {weekdays.verdict})"
moves = (
    "and turning a day in its plane moves the answer"
    if turned.moves_output
    else "and turning a day in its plane does not move the answer"
)
print(
    f"SmolLM2 keeps the order of the days (p {weekdays.order.p_circular:.4f}, the smallest possible is {weekdays.order.smallest_p:.4f}), "
    f"{closed}, {moves}: {turned.overall.estimate:+.2f} nats [{turned.overall.low:+.2f}, {turned.overall.high:+.2f}], random directions or the other sense at most "
    f"{turned.random_high:+.2f}, of {turned.swapped.mean():+.2f} that this place can do, but only at {turned.n_following} of {len(turned.steps)} steps. Numbers are a line, colours a "
    f"{colours.verdict}; an untrained model has none of it."
)

# %% [markdown]
# ## Exercises
#
# 1. Add `"months"` to `names`. Is their verdict a circle? To check: twelve words have far more orders than seven, so that the least
#    p-value is lower (`shape.order.smallest_p`).
# 2. Turn the words after block 14 instead of block 7. To check: compare `turned.overall` with the random directions of the same run.
# 3. Plant a circle of 12 items with an arc of 300 degrees. Where between 200 and 360 does the verdict change? To check: repeat with another
#    seed of the noise.
