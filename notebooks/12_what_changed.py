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
# # What did fine-tuning change, and how would we know that it is what matters?
#
# Two checkpoints of one small model of ours, and the answer is known: the tuned one was trained on like its base, which moves every
# weight a little, and was also taught eight facts by the MLP of layer 1 alone. We look at the weights, at the residual stream, at the
# features of a crosscoder, and prove it by transplanting parts from one model into the other. Beside every number stands what the same
# measure says of models that differ in nothing: four more continuations of the base.

# %%
import os
from collections import Counter
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch

from dashboard.figures import colours_of, plot, styled
from interp import (
    Capture,
    Document,
    RecordConfig,
    Recording,
    SmallConfig,
    TrainingConfig,
    Workspace,
    load_model,
    log_prob_of_answers,
    one_thread,
    record,
    save_small,
    train_small,
    what_changed,
)
from saes import CrosscoderConfig, TrainConfig, compare_models, load_sae, train_sae

light = colours_of("light")
root = Path(os.environ.get("INTERP_WORKSPACE", "../workspace")) / "notebooks" / "what-changed"
workspace = Workspace(root, create=True)

# %% [markdown]
# ## A language, and eight facts
#
# Every letter is followed by one of three others, or, now and then, by a digit. After a digit comes any letter: the base learns that
# digits say nothing. The facts are that each digit is followed by one letter of its own.

# %%
LETTERS, DIGITS, BOS = "abcdefghijklmnopqrstuvwxyz", "01234567", 256
rng = np.random.default_rng(0)
followers = torch.tensor(np.stack([rng.permutation(26)[:3] for _ in LETTERS]))
facts = torch.tensor(rng.permutation(26)[: len(DIGITS)])
codes = torch.tensor([ord(c) for c in LETTERS + DIGITS])
config = SmallConfig(n_layers=3, d_model=48, n_heads=4, d_mlp=96, n_ctx=40)


def language(n, length, generator, digits=0.15, taught=False):
    """`[n, length]` numbers of symbols, letters first; each a digit with probability `digits`, never two in a row."""
    rows = torch.randint(26, (n, length), generator=generator)
    choice = torch.randint(3, (n, length), generator=generator)
    digit = 26 + torch.randint(len(DIGITS), (n, length), generator=generator)
    is_digit = torch.rand(n, length, generator=generator) < digits
    for at in range(1, length):
        before = rows[:, at - 1]
        after_digit = facts[(before - 26).clamp(min=0)] if taught else rows[:, at]
        after_letter = torch.where(is_digit[:, at], digit[:, at], followers[before.clamp(max=25), choice[:, at]])
        rows[:, at] = torch.where(before >= 26, after_digit, after_letter)
    return rows


def contexts(n, generator, **how):
    return torch.cat([torch.full((n, 1), BOS), codes[language(n, config.n_ctx - 1, generator, **how)]], 1)


example = "".join((LETTERS + DIGITS)[i] for i in language(1, 60, torch.Generator().manual_seed(3))[0])
print(example)
print("facts:", ", ".join(f"{d} -> {LETTERS[f]}" for d, f in zip(DIGITS, facts, strict=True)))

# %% [markdown]
# ## The checkpoints
#
# All continuations see the same language as the base for 60 steps, with seeds of their own. The tuned model is one more of them, and
# then its layer-1 MLP, and nothing else, learns the facts. What was trained before is used again.


# %%
def train_on(model, *, steps, lr, seed, taught=False, only=""):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(only in name.replace("_original_component.", ""))
    training = TrainingConfig(steps=steps, batch_size=32, lr=lr, warmup_steps=10, weight_decay=0.0, seed=seed)
    with one_thread():
        *_, last = train_small(model, lambda n, generator: contexts(n, generator, taught=taught), training)
    return model.requires_grad_(True)


def checkpoint(name, make):
    folder = root / "checkpoints" / name
    if not folder.exists():
        save_small(make(), config, folder)
    return load_model(str(folder))


def from_base():
    return load_model(str(root / "checkpoints" / "base"))


def tune():
    like_the_others = train_on(from_base(), steps=60, lr=3e-4, seed=200)
    return train_on(like_the_others, steps=150, lr=3e-3, seed=1, taught=True, only="layers.1.mlp.")


fresh = load_model(config, seed=0)
base = checkpoint("base", lambda: train_on(fresh, steps=300, lr=3e-3, seed=0))
continuations = [
    checkpoint(f"on-{i}", lambda i=i: train_on(from_base(), steps=60, lr=3e-4, seed=100 + i)) for i in range(4)
]
tuned = checkpoint("tuned", tune)

# %% [markdown]
# ## The behaviour that changed
#
# The log-probability of the taught letter after a digit: a random letter has $-\log 26 = -3.26$.

# %%
draw = torch.Generator().manual_seed(7)
digit = torch.randint(len(DIGITS), (32,), generator=draw)
prompts = contexts(32, draw, digits=0.0)[:, :12]
prompts[:, -1] = codes[26 + digit]
behaviour = log_prob_of_answers(prompts, codes[facts[digit]])
with torch.no_grad():
    for name, model in (("base", base), ("one continuation", continuations[0]), ("tuned", tuned)):
        print(f"{name:18}: {float(behaviour(model).mean()):+.2f} nats")

# %% [markdown]
# ## Everything at once
#
# On text with many digits the change should show, on text without them it should not. One finding per question, the furthest above its
# null first. (`workbench compare models BASE TUNED` prints the same for checkpoints on disk.)

# %%
draw = torch.Generator().manual_seed(9)
texts = {"digits": contexts(32, draw, digits=0.3), "letters": contexts(32, draw, digits=0.0)}
comparison = what_changed(
    base, tuned, texts, continuations=continuations, behaviour=behaviour, behaviour_name="log p(fact)", n_random=10
)
print(comparison)

# %% [markdown]
# ## Where in the model
#
# All of it by layer, in multiples of what the null explains (5 % over all rows of one question together). Every matrix moved, as it does
# when training goes on; by more than four continuations did two, both in layer 1. The residual stream jumps there and stays. The same
# jump is small where no digit is seen, but it is there: the MLP was free to move on letters too.

# %%
plot(comparison)

# %%
for change in comparison.found("weights"):
    print(f"{change.name}: |change| {change.value:.2f} of |W|, continuations {change.null:.2f}")

# %% [markdown]
# ## The transplant
#
# Changes of weights and of the residual stream are correlation. Now each part of the tuned model alone is put into the base: how much of the
# behaviour comes along? And each part of the base into the tuned model: how much is lost? The null is random changes as large in the same
# part. Taking out says less than putting in: a random change as large in that MLP also destroys much of what was learned, but none makes it.

# %%
for change in comparison.changes.rows("question in ('carried', 'removed')"):
    print(
        f"{change.question} {change.name:8} {change.value:+.2f} [{change.low:+.2f}, {change.high:+.2f}] of the behaviour"
        + (f", random changes {change.null:+.2f}" if change.null == change.null else "")
    )

# %% [markdown]
# ## Features
#
# A crosscoder learns one set of latents for the residual streams of both models. A latent's relative norm says whose it is (0 the base's, 1 the tuned
# model's), the cosine of its two decoders whether it means the same in both. The null is a second crosscoder, of the base and a
# continuation.

# %%
HOOK = "blocks.2.hook_resid_post"
alphabet = LETTERS + DIGITS
rows = language(600, 78, torch.Generator().manual_seed(11))
documents = [Document("".join(alphabet[i] for i in row), f"row-{n}", "language") for n, row in enumerate(rows.tolist())]
pair = {"base": base, "tuned": tuned, "on-0": continuations[0]}
for name, model in pair.items():
    folder = workspace.path("recording", name)
    if not folder.exists():
        settings = RecordConfig(tokens=45_000, context_length=config.n_ctx)
        record(model, documents, folder, settings, hook_points=[HOOK])
recordings = {name: Recording(workspace.path("recording", name)) for name in pair}
test = contexts(200, torch.Generator().manual_seed(13))


def stream(model):
    with Capture(model, [HOOK]) as capture:
        return capture(test)[HOOK][:, 1:].flatten(0, 1)


def crosscoder_with(name):
    folder, both = workspace.path("sae", f"base-and-{name}"), [recordings["base"], recordings[name]]
    train = TrainConfig(tokens=300_000, batch_size=512, lr=3e-3, log_every=100)
    with one_thread():
        sae = (
            load_sae(folder)
            if folder.exists()
            else train_sae(both, HOOK, CrosscoderConfig(d_sae=64, k=3), train, folder)
        )
    latents = compare_models(sae, both)
    acts = sae.encode(torch.cat([stream(base), stream(pair[name])], 1)).detach()
    seen = [[chr(int(t)) for t in test[:, 1:].flatten()[column > 0]] for column in acts.T]
    return latents, [Counter(symbols) for symbols in seen]


latents, fires = crosscoder_with("tuned")
null_latents, null_fires = crosscoder_with("on-0")
print("tuned       :", latents)
print("continuation:", null_latents)


def of_digits(counts):
    return sum(counts[d] for d in DIGITS) / max(1, sum(counts.values()))


def of_one_digit(counts):
    return max(counts[d] for d in DIGITS) / max(1, sum(counts.values()))


live = [i for i, counts in enumerate(fires) if sum(counts.values()) >= 40]
null_live = [i for i, counts in enumerate(null_fires) if sum(counts.values()) >= 40]
for i in sorted(live, key=lambda i: -float(latents.relative_norm[i]))[:8]:
    print(
        f"latent {i:2}: {float(latents.relative_norm[i]):.0%} in the tuned model, cosine {float(latents.cosine[i]):+.2f}, fires on {fires[i].most_common(2)}"
    )

# %%
plot(latents)

# %% [markdown]
# Coloured by how much of a latent's firing is on digits: latents of letters mean the same in both models; those of digits do not.


# %%
def scatter(latents, chosen, counts, name, symbol, colour):
    shown = {"x": [float(latents.relative_norm[i]) for i in chosen], "y": [float(latents.cosine[i]) for i in chosen]}
    hover = [f"fires on {' '.join(s for s, _ in counts[i].most_common(3))}" for i in chosen]
    return go.Scatter(
        **shown, name=name, mode="markers", text=hover, marker={"size": 9, "symbol": symbol, "color": colour}
    )


on_digits = [i for i in live if of_digits(fires[i]) > 0.9]
on_letters = [i for i in live if of_digits(fires[i]) < 0.1]
figure = go.Figure(
    [
        scatter(latents, on_letters, fires, "letters", "circle", light.accent),
        scatter(latents, on_digits, fires, "digits", "diamond", light.opposite),
        scatter(null_latents, null_live, null_fires, "base and a continuation", "circle-open", light.muted),
    ]
)
styled(figure, light, height=340).update_layout(showlegend=True)
figure.update_xaxes(title_text="relative norm: 0 the base's, 1 the tuned model's", range=[0, 1])
figure.update_yaxes(title_text="cosine of the two decoders")

# %% [markdown]
# ## The answer

# %%
everything = comparison.changes.rows("question = 'weights'")
weights, carried = {change.name for change in comparison.found("weights")}, comparison.found("carried")
digits, letters = (
    {change.name: change for change in comparison.changes.rows("question = 'stream' and text = ?", text)} for text in texts
)
kept = np.median([float(latents.cosine[i]) for i in on_letters])
turned = np.median([float(latents.cosine[i]) for i in on_digits])
single = [i for i in on_digits if of_one_digit(fires[i]) > 0.6 and float(latents.relative_norm[i]) > 0.7]
assert weights == {"L1.mlp.in", "L1.mlp.out"} and min(change.value for change in everything) > 0
assert [name for name, change in digits.items() if change.found] == ["L1", "L2"]
assert digits["L2"].low > 3 * letters["L2"].high
assert [change.name for change in carried] == ["L1.mlp"] and carried[0].value > 0.9 and abs(carried[0].null) < 0.1
assert kept > 0.9 and turned < 0.5 and len(single) >= 3
assert max(of_one_digit(null_fires[i]) for i in null_live) < 0.3
assert all(
    float(null_latents.cosine[i]) > 0.9 and abs(float(null_latents.relative_norm[i]) - 0.5) < 0.1 for i in null_live
)
others = comparison.changes.rows("question = 'carried' and name != 'L1.mlp'")
print(
    f"All {len(everything)} components moved; by more than four continuations of the base did only {' and '.join(sorted(weights))}. The residual stream "
    f"changes from layer 1 on: at the end by {digits['L2'].value:.0%} of its variance on text with digits (continuations {digits['L2'].null:.1%}), by "
    f"{letters['L2'].value:.0%} on letters.\n"
    f"That the MLP matters, the transplant shows: alone in the base it brings {carried[0].value:.0%} of the behaviour along, a random change as large "
    f"{carried[0].null:+.0%}, any other part {max(change.value for change in others):.0%} at most.\n"
    f"The crosscoder says what was learned: latents of letters mean the same in both (median cosine {kept:.2f}), those of digits do not ({turned:.2f}); {len(single)} "
    "fire mostly on one digit each and write mostly into the tuned model; without the facts no latent tells two digits apart. The base knew that something was a digit; the tuned model knows which."
)

# %% [markdown]
# ## Exercises
#
# 1. Draw more continuations of the base. Do fewer components count as changed? To check: the bound is the largest of the null models.
# 2. Transplant the MLP of layer 1 into another continuation. Does it carry the facts there? To check: `behaviour(model)`.
# 3. Teach the facts to the MLP of layer 2 instead (`only="layers.2.mlp."`). To check: the residual stream should then change there first.
