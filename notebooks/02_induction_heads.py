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

from dashboard.figures import attention_pattern, colours_of, plot
from interp import InductionConfig, gather_induction_evidence, load_model, t_interval

light = colours_of("light")
model = load_model("smollm2-135m", attention="eager")
quick = InductionConfig(seeds=(0, 1), prompts_per_seed=8, context_length=41, screening_prompts=2, max_candidates=6)
evidence = gather_induction_evidence(model, quick)

# %% [markdown]
# ## The pattern
#
# The strict score counts only queries whose token stood there before: the share of attention on what followed it.

# %%
strict = evidence.verdicts.strict
for head in evidence.candidates:
    at = head.layer, head.head
    print(f"{head}: strict {strict[at]:.2f}, stripe {evidence.verdicts.tl[at]:.2f}")

# %%
name = next(iter(evidence.patterns))
attention_pattern(evidence.patterns[name].numpy(), evidence.texts[0]["tokens"], light)

# %% [markdown]
# ## Who tells it where to look?
#
# To attend to what *followed* a token, the head's keys must know which token stood before them. Some earlier head
# must have written that. Path patching asks every earlier head: if this candidate's keys alone saw what you would
# have written after another token, how much of the score is lost? The winner is then tested on other prompts, against
# itself by way of the queries, and against random senders.

# %%
for head, test in evidence.tests.items():
    mean, low, high = t_interval(test.k)
    print(
        f"{test.sender} -> {head}: score {test.clean.mean():.2f}, by the keys -{mean:.2f} [{low:.2f}, {high:.2f}], "
        f"by the queries {-test.q.mean():+.2f}, best of {len(test.controls)} random senders "
        f"{-test.strongest_control.mean():+.2f}, Holm p {evidence.verdicts.p_holm[head.layer, head.head]:.1e}"
    )

# %% [markdown]
# ## Do the weights agree?
#
# Composition asks the weights alone whether what one head writes is what another reads. A dot lies above the null,
# which turns the same matrices against each other at random; a ring marks each reader's strongest sender.

# %%
plot(evidence.compositions, via="k")

# %% [markdown]
# ## Does the model need them?

# %%
plot(evidence.ablations)

# %% [markdown]
# ## Would we have noticed a fake?
#
# This planted model copies exactly as an induction head would make it, by another route: it looks one position
# further and reads the token before. It has no induction head, and the same test must say so.

# %%
fake = gather_induction_evidence(load_model("planted:copying")).circuit
print(fake.verdict["reason"])

# %% [markdown]
# ## The answer

# %%
circuit = evidence.circuit
plot(circuit)

# %%
assert circuit.verdict["found"], circuit.verdict["reason"]
assert not fake.verdict["found"]
drops = [evidence.tests[head].k.mean() / evidence.tests[head].clean.mean() for head in evidence.verdicts.induction]
print(circuit.verdict["reason"] + ".")
print(
    f"Cutting one sender off their keys takes {np.min(drops):.0%} to {np.max(drops):.0%} of their score: they "
    "do copy by induction. The copier without induction attention is told apart."
)
