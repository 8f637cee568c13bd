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
# # In which layers does a model recall a capital?
#
# *The capital of France is*: SmolLM2-135M says *Paris*. Somewhere between the word *France* and the word *is* the answer has to be
# found and to move. Geva et al. 2023 saw three stages in larger models: early MLPs enrich the subject with what the model knows of it,
# later attention moves that to the last word, and there it becomes the answer. Does it hold here, and in which layers?
#
# Each stage is an experiment: remove one thing in a window of five layers, and measure how much less the model prefers this capital to
# the others. A hundred facts of one relation; the intervals are over facts. It takes one to two minutes on one core.

# %%
import numpy as np
import plotly.graph_objects as go
import torch

from dashboard.figures import colours_of, styled
from interp import Cut, LostWords, clean_run, cut_effects, load_model, run_with_hooks, t_interval, to_tokens

torch.set_grad_enabled(False)
light = colours_of("light")
model = load_model("smollm2-135m")
CAPITALS = """France Paris, Italy Rome, Spain Madrid, Germany Berlin, Japan Tokyo, Russia Moscow, England London, Greece Athens, Egypt Cairo,
China Beijing, Poland Warsaw, Portugal Lisbon, Austria Vienna, Hungary Budapest, Ireland Dublin, Norway Oslo, Sweden Stockholm,
Denmark Copenhagen, Finland Helsinki, Turkey Ankara, Iran Tehran, Iraq Baghdad, Syria Damascus, Israel Jerusalem, Jordan Amman,
Kenya Nairobi, Cuba Havana, Peru Lima, Chile Santiago, Colombia Bogotá, Venezuela Caracas, Canada Ottawa, Australia Canberra,
Afghanistan Kabul, Nepal Kathmandu, Bangladesh Dhaka, Thailand Bangkok, Vietnam Hanoi, Indonesia Jakarta, Philippines Manila,
Ukraine Kiev, Belgium Brussels, Netherlands Amsterdam, Switzerland Bern, Romania Bucharest, Bulgaria Sofia, Serbia Belgrade,
Croatia Zagreb, Tunisia Tunis, Algeria Algiers, Ethiopia Addis, Iceland Reykjavik, Scotland Edinburgh, Wales Cardiff, India Delhi,
Pakistan Islamabad, Morocco Rabat, Nigeria Abuja, Ghana Accra, Lebanon Beirut, Malaysia Kuala, Libya Tripoli, Sudan Khartoum,
Uganda Kampala, Zimbabwe Harare, Zambia Lusaka, Angola Luanda, Mozambique Maputo, Madagascar Antananarivo, Somalia Mogadishu,
Senegal Dakar, Mali Bamako, Rwanda Kigali, Jamaica Kingston, Haiti Port, Bolivia Sucre, Ecuador Quito, Uruguay Montevideo,
Paraguay Asunción, Argentina Buenos, Brazil Brasília, Nicaragua Managua, Mongolia Ulaanbaatar, Cambodia Phnom, Laos Vientiane,
Myanmar Yangon, Bhutan Thimphu, Georgia Tbilisi, Armenia Yerevan, Azerbaijan Baku, Kazakhstan Astana, Uzbekistan Tashkent,
Tajikistan Dushanbe, Kyrgyzstan Bishkek, Turkmenistan Ashgabat, Yemen Sana, Oman Muscat, Qatar Doha, Bahrain Manama, Albania
Tirana, Macedonia Skopje, Slovenia Ljubljana, Slovakia Bratislava, Latvia Riga, Lithuania Vilnius, Estonia Tallinn, Belarus Minsk,
Moldova Chișinău, Cyprus Nicosia, Malta Valletta, Fiji Suva, Taiwan Taipei, Cameroon Yaoundé, Gabon Libreville, Niger Niamey,
Namibia Windhoek, Botswana Gaborone, Malawi Lilongwe, Tanzania Dodoma, Liberia Monrovia, Gambia Banjul, Barbados Bridgetown,
Bahamas Nassau, Honduras Tegucigalpa, Texas Austin, Massachusetts Boston, Colorado Denver, Hawaii Honolulu, Arizona Phoenix,
Tennessee Nashville, Ohio Columbus, California Sacramento, Oregon Salem, Virginia Richmond, Maryland Annapolis, Illinois
Springfield, Michigan Lansing, Wisconsin Madison, Nevada Carson, Utah Salt, Idaho Boise, Montana Helena, Wyoming Cheyenne,
Nebraska Lincoln, Kansas Topeka, Oklahoma Oklahoma, Iowa Des, Missouri Jefferson, Arkansas Little, Louisiana Baton, Mississippi
Jackson, Alabama Montgomery, Florida Tallahassee, Kentucky Frankfort, Indiana Indianapolis, Pennsylvania Harrisburg, Delaware
Dover, Connecticut Hartford, Vermont Montpelier, Maine Augusta, Alaska Juneau"""
WANTED = 100
pairs = [pair.split() for pair in CAPITALS.replace("\n", " ").split(", ")]
tokens = [to_tokens(model, f"The capital of {country} is") for country, _ in pairs]
capitals = torch.tensor([int(to_tokens(model, f" {capital}", prepend_bos=False)[0, 0]) for _, capital in pairs])
logits = torch.stack([model(each)[0, -1] for each in tokens])
right = capitals[logits[:, capitals].argmax(-1)] == capitals
facts = {pairs[i][0]: (tokens[i], int(capitals[i])) for i in right.nonzero().ravel()[:WANTED].tolist()}
first = sum(int(logits[i].argmax()) == int(capitals[i]) for i in range(len(pairs)) if pairs[i][0] in facts)
print(f"of {len(pairs)} countries and states the model prefers the right capital to all others for {int(right.sum())}; "
      f"of the {WANTED} that are taken, it is the likeliest word for {first}")  # fmt: skip

# %% [markdown]
# ## The three experiments
#
# - *Enriched*: the MLPs at the subject give their mean output over other texts instead, in five layers.
# - *Moved*: the last word no longer attends to the subject, in five layers. This is the cut of `workbench why`.
# - *Answered*: the MLPs at the last word give their means.
#
# What is measured is the log-probability of the capital less the mean of the others: damage that makes every capital unlikely alike
# cancels. The null is the same at *of*, a word that names no country. All of it for one fact is one pass, a row for each experiment.

# %%
WINDOWS = [range(first, first + 5) for first in range(0, 30, 5)]
STAGES = ("enriched", "enriched, at of", "moved", "moved, from of", "answered")
answers = torch.tensor(sorted({answer for _, answer in facts.values()}))
mean_mlp = LostWords.of(model, None).mean_mlp  # of each layer, over other texts


def knows(logits, answer):
    """How much likelier each row holds the answer than the other capitals, in nats."""
    log_probs = logits.log_softmax(-1)
    return log_probs[:, answer] - log_probs[:, answers[answers != answer]].mean(-1)


def fall(tokens, answer):
    """Return how much of that every stage loses in every window, `[stages, windows]`."""
    end = tokens.shape[1] - 1
    subject, of, last = slice(4, end), slice(3, 4), slice(end, end + 1)
    at = dict(zip(STAGES, (subject, of, subject, of, last), strict=True))
    rows = [(stage, window) for stage in STAGES for window in WINDOWS]

    def change(layer):
        here = [(row, stage, at[stage]) for row, (stage, window) in enumerate(rows, 1) if layer in window]

        def replace(value, hook):
            value = value.clone()
            for row, stage, where in here:
                if not stage.startswith("moved"):
                    value[row, where] = mean_mlp[layer]
            return value

        def cut(value, hook):
            value = value.clone()
            for row, stage, where in here:
                if stage.startswith("moved"):
                    value[row, :, -1, where] = torch.finfo(value.dtype).min
            return value

        return [(f"blocks.{layer}.hook_mlp_out", replace), (f"blocks.{layer}.attn.hook_attn_scores", cut)]

    hooks = [hook for layer in range(30) for hook in change(layer)]
    known = knows(run_with_hooks(model, tokens.repeat(len(rows) + 1, 1), hooks)[:, -1], answer)
    return (known[0] - known[1:]).reshape(len(STAGES), len(WINDOWS)).numpy()


lost = np.stack([fall(*fact) for fact in facts.values()])
mean = dict(zip(STAGES, lost.mean(0), strict=True))
for stage in STAGES:
    print(f"{stage:16}", "  ".join(f"{value:5.1f}" for value in mean[stage]))

# %% [markdown]
# The same cut with the library, for France alone: the fall of the log-probability of *Paris*, which needs no hooks of ours.

# %%
tokens, answer = facts["France"]
run = clean_run(model, tokens)
edge = run.positions(run.texts.index("France"), len(run.words) - 1)
effects = cut_effects(run, [Cut((edge,), window[0], window[-1]) for window in WINDOWS])
print("France to is, fall of log P(Paris) in each window:", [round(each.effect, 2) for each in effects])
strongest = int(np.argmax([each.effect for each in effects]))

# %%
figure = go.Figure()
layers = [f"{window[0]} to {window[-1]}" for window in WINDOWS]
for stage, colour in (("enriched", light.accent), ("moved", light.opposite), ("answered", light.muted)):
    found = t_interval(lost[:, STAGES.index(stage)].T)
    spread = {"array": found.high - found.estimate, "thickness": 1.5}
    figure.add_bar(x=layers, y=found.estimate, error_y=spread, name=stage, marker_color=colour)
for stage, symbol in (("enriched, at of", "circle-open"), ("moved, from of", "diamond-open")):
    figure.add_scatter(x=layers, y=mean[stage], mode="markers", name=f"null: {stage}", marker={"symbol": symbol, "size": 10})
styled(figure, light, height=380).update_layout(showlegend=True, barmode="group")
figure.update_xaxes(title_text="layers")
figure.update_yaxes(title_text="fall of this capital against the others, nats")

# %% [markdown]
# In the first five layers any MLP matters, also that at *of*: without it the word itself is not read. What the subject has beyond *of* is
# its own part. The move is sharp: one window. The last stage is not: MLPs at the last word matter in every window, and what sets them apart
# is that from the move on they alone do. They have no null of their own here.
#
# ## The answer

# %%
own = t_interval(lost[:, 0, 0] - lost[:, 1, 0])
moved = t_interval(lost[:, 2, 4] - lost[:, 3, 4])
where = np.argmax(lost[:, 2], axis=1)
after = t_interval(lost[:, 4, 4:].sum(-1) - lost[:, 0, 4:].sum(-1))
share = mean["moved"][4] / mean["moved"].sum()
assert len(facts) == WANTED and strongest == 4
assert own.low > 1 and mean["enriched"].argmax() == 0 and mean["enriched"][0] > 5 * mean["enriched"][1]
assert moved.low > 5 and (where == 4).mean() > 0.9 and abs(mean["moved, from of"]).max() < 1
assert after.low > 2
print(
    f"In three stages, the second of them sharp. MLPs at the country enrich it in layers 0 to 4 ({own.estimate:.1f} nats more than those "
    f"at of; {own.low:.1f} to {own.high:.1f}).\nThe last word reads it in layers 20 to 24: {moved.estimate:.1f} nats more than from of "
    f"({moved.low:.1f} to {moved.high:.1f}), {share:.0%} of what all windows lose, the largest in {(where == 4).mean():.0%} of {len(facts)} "
    f"facts.\nIn these layers and after them, MLPs at the country no longer matter, and those at the last word do: {after.estimate:.1f} "
    f"nats more ({after.low:.1f} to {after.high:.1f})."
)

# %% [markdown]
# ## Exercises
#
# 1. Ask in other words, *The capital city of France is*. Do the windows stay? To check: the move is in layers 20 to 24 again.
# 2. Cut all layers but 20 to 24. How much is lost? To check: compare it with the sum over these windows; effects of cuts need not add up.
# 3. Swap instead of cutting: `workbench why smollm2-135m "The capital of France is" --swap France=Italy`. To check: the model says Rome,
#    and unrelated values of equal norm do not make it.
