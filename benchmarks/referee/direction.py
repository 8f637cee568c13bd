"""Cases of *a direction steers*: added to the residual stream after a block, it makes the model say some words.

The embedding writes two orthogonal directions on these words. Later layers read one of them: by even seeds the
unembedding raises the words along it, by odd ones neurons of the next block carry it to a direction that raises them.
`effect` scales what they write. The claim is about this direction; in the near miss it is about the other one, which is
as active on the words. In the untrained and the shuffled control it is the difference between the mean residuals on
the words and on all others.

The files of a case: `small.json` and `model.safetensors`, `direction.safetensors` (`vector [d_model]`, of unit length),
`texts.json` (documents, and prompts to steer). `details`: `hook_point`, `words`, and their `tokens`.

`answer` chooses a strength on one half of the prompts and judges it on the other (`interp.directions.choosing`), as for
a direction from a file: supported if its effect exceeds that of all random directions.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.referee.cases import Answer, Control, Details
from benchmarks.referee.small_models import (
    Setting,
    random_model,
    read_texts,
    residuals,
    setting_of,
    shuffle_weights,
    tokens_of,
    write_texts,
)
from interp.directions.choosing import Candidate, choose_steering
from interp.directions.files import read_vector
from interp.directions.questions import neutral_text, word_questions
from interp.geometry.points import unit_vector
from interp.models.hooked import HookedModel
from interp.models.loading import load_model
from interp.models.small import save_small
from interp.seeds import make_generator

VECTOR = "direction.safetensors"
ACTIVE, RAISED, GAIN, NEURONS = 1.5, 2.0, 2.0, 4
"""What the words write along either direction, the logits raised along what is read, and the neurons' gain."""
N_NEUTRAL = 12


def write(folder: Path, control: Control, effect: float, seed: int) -> Details:
    """Write a model, a direction, texts and the claim about it."""
    setting = setting_of(seed)
    model, words = random_model(setting), setting.groups[0]
    steers, idle = torch.linalg.qr(setting.unit(2).T).Q.T
    with torch.no_grad():
        if control != "untrained":
            plant(model, setting, words, steers, idle, effect if control == "planted" else 1.0, seed % 2 == 1)
        if control == "shuffled":
            shuffle_weights(model, make_generator(seed, "shuffled"))
        vector = idle if control == "near miss" else steers
        if control in ("untrained", "shuffled"):
            x, tokens = residuals(model, setting.hook_point, setting.texts)
            yes = torch.isin(tokens, torch.tensor(tokens_of(words)))
            vector = x[yes].mean(0) - x[~yes].mean(0)
    save_small(model, setting.config, folder)
    save_file({"vector": (vector / vector.norm()).contiguous()}, folder / VECTOR)
    write_texts(folder, setting.texts)
    return {"hook_point": setting.hook_point, "words": list(words), "tokens": tokens_of(words)}


def plant(
    model: HookedModel,
    setting: Setting,
    words: tuple[str, ...],
    steers: Tensor,
    idle: Tensor,
    effect: float,
    by_neurons: bool,
) -> None:
    """Add both directions `[d_model]` to random weights: written on the words, and one of them read later."""
    ids = tokens_of(words)
    unembed = model.unembed.original_component.weight
    model.W_E[ids] = model.W_E[ids] + ACTIVE * (steers + idle)
    if not by_neurons:
        unembed[ids] += effect * RAISED * steers
        return
    [carried] = setting.unit()
    mlp = model.blocks[setting.layer + 1].mlp.original_component
    mlp.fc_in.weight[:NEURONS] = GAIN * steers
    mlp.fc_out.weight[:, :NEURONS] = effect * carried[:, None] / (GAIN * NEURONS)
    unembed[ids] += RAISED * carried


def answer(folder: Path, details: Details) -> Answer:
    """Choose a strength of the direction on half of the prompts, and judge it on the others."""
    texts, words = read_texts(folder), details["words"]
    model = load_model(str(folder))
    vector, hook_point = read_vector(folder / VECTOR, details["hook_point"])
    rows = residuals(model, hook_point, texts)[0].flatten(0, 1)
    typical = float((rows - rows.mean(0)).norm(dim=1).mean())
    neutral = ["".join(word for word in text if word not in words) for text in texts.documents[:N_NEUTRAL]]
    choice = choose_steering(
        model,
        [Candidate(hook_point, unit_vector(vector), typical)],
        word_questions(model, texts.prompts, details["tokens"], words),
        neutral_text(model, neutral),
    )
    return Answer(outcome="supported" if choice.works else "not supported", why=choice.sentence())
