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
# # What does one neuron do, and how would we know?
#
# A neuron weighs its inputs, adds a bias, and cuts off below zero. We start where one of them is not enough (XOR), see what
# backpropagation says about who did it, and where it misleads; then take both questions to SmolLM2-135M: which of its 46,080 MLP
# neurons make it say *Paris*, and on which text does the strongest of them fire?

# %%
import os
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

from dashboard.figures import activation_histogram, colours_of
from interp import (
    Capture,
    RecordConfig,
    Recording,
    Workspace,
    load_model,
    open_corpus,
    record,
    run_with_hooks,
    to_tokens,
    token_strings,
)
from saes import Described, Features, build_features, neurons_of

light = colours_of("light")
root = Path(os.environ.get("INTERP_WORKSPACE", "../workspace")) / "notebooks" / "inside-a-neuron"
workspace = Workspace(root, create=True)

# %% [markdown]
# ## One neuron cannot, two can
#
# XOR is on when exactly one of two inputs is. One neuron draws one straight line, and the best of a fine grid of lines is right on
# three of the four points. Two ReLU neurons and one readout are exact: `relu(a + b) - 2 relu(a + b - 1)`.

# %%
points = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
truth = torch.tensor([0.0, 1, 1, 0])
grid = torch.linspace(-2, 2, 41)
lines = torch.cartesian_prod(grid, grid, grid)  # two weights and a bias
right = ((points @ lines[:, :2].T + lines[:, 2] > 0) == (truth[:, None] > 0)).float().mean(0)


def xor(x):
    total = x.sum(-1)
    return total.relu() - 2 * (total - 1).relu()


print(f"one neuron: at best {float(right.max()):.0%} of the four points; two neurons: {xor(points).tolist()}")

# %% [markdown]
# ## Does gradient descent find them?
#
# Two hundred networks at once, each from its own random weights. Two hidden neurons suffice on paper; in practice more of them make it
# likely that enough start alive.


# %%
def share_solved(n_hidden, n_networks=200, steps=1500):
    generator = torch.Generator().manual_seed(n_hidden)
    shapes = [(2, n_hidden), (1, n_hidden), (n_hidden, 1), (1, 1)]
    weights = [torch.randn(n_networks, *shape, generator=generator).requires_grad_() for shape in shapes]
    optimizer = torch.optim.Adam(weights, lr=0.02)
    for _ in range(steps):
        guess = ((points @ weights[0] + weights[1]).relu() @ weights[2] + weights[3])[..., 0]
        loss = (guess - truth).square().mean(1)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return float((loss < 1e-3).float().mean())


solved = {n: share_solved(n) for n in (1, 2, 4, 8)}
print("solved:", {n: f"{share:.0%}" for n, share in solved.items()})

# %% [markdown]
# ## Who did it? What backpropagation says, and where it misleads
#
# At (1, 1) XOR is 0. Gradient times input gives each input -1, as if both pulled it down from 2: the shares do not add up to what
# happened between (0, 0) and (1, 1), which is nothing. Gradients averaged on the way (integrated gradients) do.


# %%
def gradient(at):
    at = at.clone().requires_grad_()
    return torch.autograd.grad(xor(at).sum(), at)[0]


one_one = torch.tensor([1.0, 1.0])
shares = {"gradient x input": gradient(one_one) * one_one}
way = (torch.arange(1000) + 0.5) / 1000
shares["integrated gradients"] = gradient(way[:, None] * one_one).mean(0) * one_one
for name, share in shares.items():
    print(
        f"{name:20}: {[round(float(v), 2) + 0.0 for v in share]}, sum {float(share.sum()) + 0.0:+.2f}; the output rose by {float(xor(one_one) - xor(0 * one_one)):.2f}"
    )

# %% [markdown]
# ## The neurons behind *Paris*
#
# One backward pass gives the gradient of `logit( Paris) - logit( London)` by every neuron at the last token; times the neuron's value
# it predicts what setting that neuron to zero takes away. We check the prediction by doing so, neuron by neuron: the 40 strongest, and
# 40 at random.

# %%
model = load_model("smollm2-135m")
tokens = to_tokens(model, "The Eiffel Tower is in the city of")
answer, wrong = (int(to_tokens(model, text, prepend_bos=False)[0, 0]) for text in (" Paris", " London"))
n_layers = model.cfg.n_layers
names = [f"blocks.{layer}.mlp.hook_post" for layer in range(n_layers)]


def difference(logits):
    return logits[:, -1, answer] - logits[:, -1, wrong]


kept = {}


def start(value, hook):
    return value.detach().requires_grad_()


def keep(value, hook):
    value.retain_grad()
    kept[hook.name] = value


with torch.enable_grad():
    logits = run_with_hooks(model, tokens, [("blocks.0.hook_resid_pre", start), *((name, keep) for name in names)])
    difference(logits).sum().backward()
clean = float(difference(logits.detach()))
values = torch.stack([value[0, -1].detach() for value in kept.values()])
predicted = torch.stack([value.grad[0, -1] * value[0, -1].detach() for value in kept.values()])
print(
    f"{values.numel():,} neurons; the most probable next token is {token_strings(model, logits[0, -1:].argmax(-1))[0]!r}, logit difference {clean:.2f}"
)


# %%
def without(neurons):
    """What is lost of the logit difference when each of these neurons alone is 0 at the last token."""
    lost = []
    for layer, neuron in neurons:

        def silence(value, hook, neuron=neuron):
            value = value.clone()
            value[:, -1, neuron] = 0
            return value

        with torch.no_grad():
            lost.append(clean - float(difference(run_with_hooks(model, tokens, [(names[layer], silence)]))))
    return torch.tensor(lost)


order = predicted.flatten().abs().argsort(descending=True)
width = predicted.shape[1]
best = [divmod(int(i), width) for i in order[:40]]
drawn = torch.randperm(predicted.numel(), generator=torch.Generator().manual_seed(0))[:40]
others = [divmod(int(i), width) for i in drawn]
lost, lost_others = without(best), without(others)
guess = torch.stack([predicted[neuron] for neuron in best])
agreement = pearsonr(guess, lost)[0]
ranks = spearmanr(guess.abs(), lost.abs())[0]
print(f"40 strongest: predicted and measured agree, Pearson {agreement:.2f} (ranks of size {ranks:.2f})")
print(
    f"mean size measured: {float(lost.abs().mean()):.3f} logits, of random neurons {float(lost_others.abs().mean()):.4f}"
)
for (layer, neuron), share, measured in list(zip(best, guess.tolist(), lost.tolist(), strict=True))[:6]:
    print(
        f"  layer {layer:2} neuron {neuron:4}: value {float(values[layer, neuron]):+6.2f}, predicted {share:+.2f}, measured {measured:+.2f}"
    )

# %% [markdown]
# ## On which text does it fire?
#
# A neuron has two sides; we read the one that it uses here. Some helpers are on at every token, whatever it says: constants rather than
# detectors. We take the strongest that is silent on two thirds of the tokens or more, and read 16,000 tokens of docstrings for it. What its
# strongest firings share is compared with as many of other neurons, shuffled.

# %%
helping = sorted(
    ((measured, pair) for pair, measured in zip(best, lost.tolist(), strict=True) if measured > 0), reverse=True
)
texts = (to_tokens(model, document.text)[0, :64] for document in open_corpus("docstrings", seed=0))
prose = torch.stack(list(islice((text for text in texts if len(text) == 64), 8)))
with Capture(model, sorted({names[pair[0]] for _, pair in helping})) as capture:
    on_prose = capture(prose)
density = {
    pair: float((on_prose[names[pair[0]]][..., pair[1]] * values[pair].sign() > 0).float().mean())
    for _, pair in helping
}
for measured, pair in helping[:5]:
    print(f"  layer {pair[0]:2} neuron {pair[1]:4}: worth {measured:+.2f}, on at {density[pair]:.0%} of tokens")
layer, neuron = next(pair for _, pair in helping if density[pair] < 1 / 3)
sign = 1 if values[layer, neuron] > 0 else -1
folder, described = (
    workspace.path("recording", f"layer-{layer}"),
    workspace.path("features", f"neurons-{layer}-{'up' if sign > 0 else 'down'}"),
)
if not folder.exists():
    corpus = open_corpus("docstrings", seed=0)
    record(model, corpus, folder, RecordConfig(tokens=16_000, seed=0), hook_points=[names[layer]])
recording = Recording(folder)
if not described.exists():
    neurons = neurons_of(model, names[layer], sign=sign)
    build_features(Described(dictionary=neurons, name=f"neurons:{names[layer]}", folder=described), recording, model)
summary = workspace.query(
    "select * from f where feature = ?", neuron, f=workspace.table_path("features", described.name, "features")
).to_pylist()[0]
examples = workspace.query(
    """select feature, activation, tokens, peak from e where "group" = 'top' order by feature, rank""",
    e=workspace.table_path("features", described.name, "examples"),
).to_pylist()
print(
    f"layer {layer} neuron {neuron} ({'positive' if sign > 0 else 'negative'} side): active on {summary['density']:.0%} of tokens; raises {summary['promoted_tokens'][:6]}"
)
for example in [e for e in examples if e["feature"] == neuron][:8]:
    words, peak = example["tokens"], example["peak"]
    print(
        f"{example['activation']:6.2f}  {''.join(words[:peak])[-50:]!r} >>{words[peak]}<< {''.join(words[peak + 1 :])[:25]!r}"
    )

# %%
activation_histogram(summary["histogram"], workspace.open(Features, described.name).histogram_edges, light)


# %%
def most_common(words):
    return max(words.count(word) for word in set(words)) / len(words)


peaks = {}
for example in examples:
    peaks.setdefault(example["feature"], []).append(example["tokens"][example["peak"]].strip().lower())
full = [words for words in peaks.values() if len(words) == 12]
pool = [word for words in full for word in words]
shuffled = np.random.default_rng(0).permutation(len(pool)).reshape(-1, 12)
alike = np.mean([most_common(words) for words in full])
chance = np.mean([most_common([pool[i] for i in row]) for row in shuffled])
print(f"of a neuron's 12 strongest firings {alike:.0%} are on its most common token; of 12 shuffled ones {chance:.0%}")

# %% [markdown]
# ## The answer

# %%
largest, owner = max(zip(lost.tolist(), best, strict=True), key=lambda pair: abs(pair[0]))
assert float(right.max()) == 0.75 and torch.equal(xor(points), truth) and solved[1] == 0 and solved[8] > solved[2]
assert float(shares["gradient x input"].sum()) == -2 and abs(float(shares["integrated gradients"].sum())) < 1e-3
assert agreement > 0.8 and float(lost.abs().mean()) > 10 * float(lost_others.abs().mean())
assert alike > chance + 0.1
print(
    f"One neuron is a line: it cannot do XOR; two can, and of networks that start at random {solved[2]:.0%} with two neurons find it, "
    f"{solved[8]:.0%} with eight.\nGradients say who did it only where nothing bends on the way: on XOR they are wrong, averaged on the way they add "
    f"up. In SmolLM2 one backward pass predicts what each of the 40 strongest neurons is worth (r = {agreement:.2f} with silencing it); "
    f"none decides alone: of {clean:.1f} logits the largest is layer {owner[0]} neuron {owner[1]} with {largest:+.2f}, and it is on at {density[helping[0][1]]:.0%} "
    "of all tokens, a constant more than a detector.\n"
    f"Most neurons are no words: of twelve strongest firings {alike:.0%} share a token (chance {chance:.0%}). Reading one by its examples is a start, and a "
    "neuron that does many things is why dictionaries of features are trained."
)

# %% [markdown]
# ## Exercises
#
# 1. Ask for *Rome* instead of *London* as the wrong answer. Which neurons stay among the strongest? To check: ablate them again.
# 2. Ablate the ten strongest neurons together. Is the effect the sum of the single ones? To check: if it is, the predictions add up too.
# 3. Read the other side of the neuron, `sign=-sign`. To check: are its twelve strongest firings alike, more than shuffled ones?
