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
# # Do these heads copy by induction, or do they only look like it?
#
# Give a model random tokens, twice. The second time it can guess each next token, if it finds where the current one
# stood before and reads what came after. A head that attends there is called an induction head (Olsson et al. 2022).
# But a pattern is not a mechanism: here is the way from the one to the other, on SmolLM2-135M with quick settings.
#
# `workbench circuit induction smollm2-135m` does the same with more prompts, and writes a folder that the dashboard
# shows.

# %%
import numpy as np

from dashboard.figures import ablation_bars, attention_pattern, colours_of, composition_map, plot
from interp import InductionConfig, find_induction_circuit, load_model, t_interval

light = colours_of("light")
model = load_model("smollm2-135m", attention="eager")
quick = InductionConfig(seeds=(0, 1), prompts_per_seed=8, context_length=41, screening_prompts=2, max_candidates=6)
evidence = find_induction_circuit(model, quick)

# %% [markdown]
# ## The pattern
#
# The strict score counts only queries whose token stood there before: the share of attention on what followed it.

# %%
for row in evidence.candidates:
    print(f"{row.name}: strict {row.strict:.2f}, stripe {row.tl:.2f}")

# %%
attention_pattern(evidence.patterns[0], list(evidence.prompts[0].clean), light)

# %% [markdown]
# ## Who tells it where to look?
#
# To attend to what *followed* a token, the head's keys must know which token stood before them. Some earlier head
# must have written that. Path patching asks every earlier head: if this candidate's keys alone saw what you would
# have written after another token, how much of the score is lost? The winner is then tested on other prompts, against
# itself by way of the queries, and against random senders.

# %%
p_holm = {row.name: row.p_holm for row in evidence.verdicts}
for head, test in evidence.tests.items():
    mean, low, high = t_interval(test.k)
    print(
        f"{test.sender} -> {head}: score {test.clean.mean():.2f}, by the keys -{mean:.2f} [{low:.2f}, {high:.2f}], "
        f"by the queries {-test.q.mean():+.2f}, best of {len(test.controls)} random senders "
        f"{-test.strongest_control.mean():+.2f}, Holm p {p_holm[head]:.1e}"
    )

# %% [markdown]
# ## Do the weights agree?
#
# Composition asks the weights alone whether what one head writes is what another reads. A dot lies above the null,
# which turns the same matrices against each other at random; a ring marks each reader's strongest sender.

# %%
composition_map(evidence.composition.rows(), "k", light)

# %% [markdown]
# ## Does the model need them?

# %%
ablation_bars(evidence.ablations.rows(), light)

# %% [markdown]
# ## Would we have noticed a fake?
#
# This planted model copies exactly as an induction head would make it, by another route: it looks one position
# further and reads the token before. It has no induction head, and the same test must say so.

# %%
fake = find_induction_circuit(load_model("planted:copying"))
print(fake.verdict.reason)

# %% [markdown]
# ## The answer

# %%
plot(evidence)

# %%
assert evidence.verdict.holds, evidence.verdict.reason
assert not fake.verdict.holds
drops = [evidence.tests[head].k.mean() / evidence.tests[head].clean.mean() for head in evidence.induction]
print(evidence.verdict.reason + ".")
print(
    f"Cutting one sender off their keys takes {np.min(drops):.0%} to {np.max(drops):.0%} of their score: they "
    "do copy by induction. The copier without induction attention is told apart."
)

# %% [markdown]
# ## Exercises
#
# 1. Lower `max_candidates` to 2. Does the verdict change? To check: `evidence.verdict.reason` names the heads that were tested.
# 2. Plot the composition with queries, `composition_map(evidence.composition.rows(), "q", light)`. To check: the rings of the tested
#    senders lie above the null for keys; for queries they should not.
# 3. Run the analysis on `load_model("toy:induction-1l")`, which has one layer. To check: it cannot compose heads, so nothing may be found.
