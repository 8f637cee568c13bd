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
# # From load to proof: does a feature do what its label says?
#
# One lesson in seven steps, on one sentence: load a model, read what it computes, decode that with a lens, attribute the answer to
# features, patch it, steer a feature, and prove what the feature does. Every call works on other models and prompts. Nothing is
# trained: the dictionary of features ships with the package. On two cores the proof takes a minute or two, each other step seconds.
# *Six ideas* in the documentation has a page on each of the words used here: hook point, dictionary, lens, null, proof.
#
# ## 1. Load
#
# A model is named by one word; `workbench models` lists the known ones. Its weights are used as they are. The two sentences differ in
# one word, so that their difference is about *red*.

# %%
import pandas as pd

from dashboard.figures import plot
from interp import (
    Capture,
    Intervention,
    JacobianLens,
    Latent,
    NextToken,
    Offset,
    Workspace,
    activation_patching,
    generate,
    hooks_of,
    load_model,
    logit_lens,
    to_tokens,
    token_strings,
)
from saes import MeasuredPrompts, ProofConfig, attribute_features, load_sae, prove
from workbench.demo import DATA

model = load_model("smollm2-135m")
text, variant = "Roses are red, violets are", "Roses are old, violets are"
tokens, corrupt = to_tokens(model, text), to_tokens(model, variant)
print(model.cfg.n_layers, "layers,", model.cfg.n_heads, "heads each,", model.cfg.d_model, "numbers per token")
print(token_strings(model, tokens[0]))

# %% [markdown]
# ## 2. Read
#
# A *hook point* names a value that the model computes. `Capture` reads the ones you name and stops after the last of them. The first
# below is the *residual stream*: the vector of each token, to which every block adds. The second is how much each token attends to each
# earlier one, in every head.

# %%
point = "blocks.9.hook_resid_post"  # the residual stream after block 9
with Capture(model, [point, "blocks.9.attn.hook_pattern"]) as capture:
    cache = capture(tokens)
for name, value in cache.items():
    print(f"{name:26} {list(value.shape)}")

# %% [markdown]
# ## 3. Lens
#
# A lens decodes the residual stream of a layer into a next token: what the model would say if it stopped there. The Jacobian lens first
# applies what later layers do to it on average; without `lens=` the call below is the logit lens, which leaves them out. In the table *reading*
# is the most likely token, *entropy* how undecided the lens is, and *kl* how far it is from the model's own prediction (KL divergence;
# both in nats, 0 where the two agree). From which layer on is the answer read?

# %%
shipped = Workspace(DATA)
lens = shipped.open(JacobianLens, "smollm2-135m")
print(logit_lens(model, tokens, lens=lens))

# %% [markdown]
# *blue* is read from layer 27 on, a colour (*purple*) from layer 25 on. Up to layer 19 the lens reads words that could begin anything,
# and is 5 nats or more from the output. A feature after block 9 therefore acts through later layers.
#
# ## 4. Attribute
#
# A dictionary writes the residual stream at its hook point as a sum of features, of which few are active, and a reconstruction error.
# Attribution estimates how much each feature adds to the log-probability of *blue*. The baseline is the second sentence, where *red* is
# *old*; `MeasuredPrompts` holds the two sentences and the answer. In the line that is printed the sum of all features, the effect of the reconstruction error, and a *rest* add up to the difference between the two
# sentences; the rest is what an estimate from gradients misses.
#
# In the table *label* says on which tokens a feature is active. One that was made by rule ends in its balanced accuracy on held-out
# text: how often it tells tokens on which the feature is active from others, where 50 % is chance. One without a percentage was written
# by a reader, and judged by another. *density* is the share of tokens on which the feature is active, *max_activation* its largest
# value in the recorded text.

# %%
sae = load_sae(shipped.path("sae", "demo"))
[shares] = attribute_features(model, sae, MeasuredPrompts.of_text(model, text, " blue", corrupt=variant))
print(shares.headline())
table = shipped.table_path("features", "demo", "features")
known = shipped.query("select feature, label, density, max_activation from f", f=table).to_pandas().set_index("feature")
pd.DataFrame(shares.top(6), columns=["feature", "effect (nats)"]).join(known, on="feature")

# %% [markdown]
# ## 5. Patch
#
# Attribution estimates; patching measures. One value of the first sentence replaces that of the second, layer by layer and position by
# position. What is measured is the logit of *blue* less that of *old*. 0: nothing changes. 1: the whole difference between the two
# sentences comes back.

# %%
blue, old = (int(to_tokens(model, word, prepend_bos=False)[0, 0]) for word in (" blue", " old"))
patched = activation_patching(model, (tokens, corrupt), lambda logits: logits[:, -1, blue] - logits[:, -1, old])
plot(patched)

# %% [markdown]
# The difference is on *red* up to layer 10 and on the last token from layer 23 on: in between, attention moves it.
#
# ## 6. Steer
#
# Attribution names feature 540, *colors*. An *intervention* is a value: what is changed, how, and by how much. Here the feature's
# activation is raised on every token of another sentence, by the largest activation that it has in text (`amount` is the activation
# itself, not a multiple).
#
# Three names are needed to write text with it. `hooks_of` turns interventions into hooks of the model. `NextToken` gives the logits of
# the next token, and keeps what it has computed of earlier ones. `Offset` counts these, so that the hooks know the position of the
# token that they see; both get the same one.

# %%
start, most = to_tokens(model, "The walls of the room were"), float(known.loc[540, "max_activation"])
colour = Intervention(target=Latent(dictionary="saes/demo", index=540), amount=most)


def continued(steps):
    offset = Offset()
    step = NextToken(model, hooks_of(model, steps, {"saes/demo": sae}, offset=offset), offset=offset)
    return "".join(token_strings(model, list(generate(step, start, 16))))


plain, steered = continued([]), continued([colour])
print(f"label: {known.loc[540, 'label']}, largest activation {most:.1f}")
print("unchanged:", plain)
print("steered:  ", steered)

# %% [markdown]
# ## 7. Prove
#
# Any direction raises some words, so a list of raised words proves nothing. The proof takes the words that the feature *reads*: the
# tokens on which it peaks in one half of its examples. The other half, and neutral prompts, judge four claims: it fires on them,
# steering makes the model say them, ablation makes it say them less, and the lens reads them in its direction. Each has two nulls on the same
# words: random directions of the same norm, and other features that are active as often. A test holds where both are exceeded. The
# settings below only shorten it: four other features, and eight new tokens in each text.

# %%
config = ProofConfig(others=4, new_tokens=8)
proof = prove(model, sae, shipped.path("features", "demo"), 540, config, lens=lens)
print(proof)

# %% [markdown]
# ## The answer

# %%
assert 540 in [feature for feature, _ in shares.top(3)], "the label fits what attribution found"
assert float(patched.effect[9].max()) > 0.5, "after block 9 one position carries most of the difference"
assert "blue" not in plain and "blue" in steered
assert proof.holds(), proof.headline()
print(proof.headline())

# %% [markdown]
# ## Exercises
#
# 1. Take `lens=` out of step 3. From which layer on does the logit lens read *blue*? To check: its KL at layer 30 is 0, since that
#    reading is the model's own prediction.
# 2. Add `what="z", by_position=False` to step 5 and print the result. Which head raises *blue* most? To check: ablate it, with
#    `from interp import Component, intervened` and
#    `with intervened(model, [Intervention(target=Component(name="L12H3"), action="ablate")]):` around `model(tokens)`. Does the logit
#    of *blue* less that of *old* fall further than when you ablate other heads of its layer?
# 3. Steer with half and with twice the amount. To check: count the colours, and read whether the text is still a sentence.
# 4. Prove feature 4709, a comma. To check: the page *A feature, proved* says what we found, and why.
#
# ## Solutions
#
# 1. In the last row only. At layer 27 the logit lens still reads a space, 6.4 nats from the output, where the Jacobian lens reads *blue*.
# 2. L22H8, with 0.12 of the difference between the sentences; L25H7 lowers it by 0.28. Ablated, L22H8 takes the difference of the two
#    logits from 6.67 to 6.51, and L22H2 to 6.49: the check fails. No single head moves the colour; the residual stream as a whole does.
# 3. Half: *a deep, rich, dark purple*, one colour in a sentence. Twice: *with, with, with*, neither a colour nor a sentence. Steering has
#    a strength beyond which it only does damage.
# 4. None of its tests holds: the feature is active on commas, and steering along it does not make the model say them.
