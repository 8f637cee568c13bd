"""Cases of *a feature means*: a latent of a dictionary fires on some words, and makes the model say them.

A text has topics, and the embedding writes a direction of its own for the words of each. One latent reads this
direction and writes it; a head carries its mean over a text to later positions, and the unembedding raises the words
along it. `effect` scales all four against random weights. The other latents read and write random directions. All have
a threshold at which they are active as often as the words are.

The files of a case: `small.json` and `model.safetensors`, `cfg.json` and `sae_weights.safetensors` (the dictionary in
SAELens' layout), `texts.json` (documents, and prompts to steer). `details`: `latent`, `hook_point`, `words`, and their
`tokens`.

In the untrained and the shuffled control the latent is the one that is most active on the words, so that only what it
writes can refute the claim. There are two near misses: by even seeds the words of another planted latent, by odd ones
the right words of a latent that reads them and writes the direction of another.

`answer` is the proof of the feature (`saes.features.measure_proof`) on the words of the claim: it is supported if the
latent fires on them, and steering or ablating it changes how much the model says them.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.referee.cases import Answer, Control, Details
from benchmarks.referee.small_models import (
    LENGTH,
    Setting,
    random_model,
    read_texts,
    residuals,
    setting_of,
    shuffle_weights,
    tokens_of,
    write_texts,
)
from interp.models.hooked import HookedModel
from interp.models.loading import load_model
from interp.models.small import save_small
from interp.recording.live import open_recording
from interp.recording.record import RecordConfig, record
from interp.seeds import make_generator
from interp.text.corpora import Document
from saes.features.build import Described, build_features
from saes.features.case import ProofConfig
from saes.features.measure_proof import prove
from saes.features.proof import EFFECTS
from saes.features.schema import FeaturesConfig
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.kinds.l1 import ReLUSAE
from saes.weights.folder import load_sae, save_sae

D_SAE = 128
CLAIMED = ("fires", *EFFECTS, "joined")
"""Tests of the proof; whether the direction separates a list is no part of the claim."""
READ, CARRIED, RAISED = 1.0, 2.0, 2.0
"""Along a feature in full: what its words write, how much of their mean a head carries, and the logits it raises.

At 1.5 two of 99 random directions read the words as well, in so few dimensions: no AUROC exceeds 1."""


def write(folder: Path, control: Control, effect: float, seed: int) -> Details:
    """Write a model, a dictionary, texts and the claim about one latent."""
    setting = setting_of(seed)
    rng, config = setting.rng, setting.config
    model, features = random_model(setting), setting.unit(len(setting.groups))
    latents = rng.permutation(D_SAE)[: len(features)]
    reads = setting.unit(D_SAE)
    asked, other = rng.permutation(len(features))[:2]
    with torch.no_grad():
        if control != "untrained":
            strength = 1.0 if control in ("shuffled", "near miss") else effect
            plant(model, setting, features, strength)
            reads[latents] = features
        writes = reads.clone()
        if control == "near miss" and seed % 2:
            writes[latents[asked]] = features[other]
        elif control == "shuffled":
            shuffle_weights(model, make_generator(seed, "shuffled"))
            reads, writes = (rows.flatten()[rng.permutation(rows.numel())].view_as(rows) for rows in (reads, writes))
        words, latent = setting.groups[asked], int(latents[asked])
        x, tokens = residuals(model, setting.hook_point, setting.texts)
        on_words = torch.isin(tokens, torch.tensor(tokens_of(words)))
        sae = dictionary(setting, reads, writes, x.flatten(0, 1), float(on_words.float().mean()))
        if control in ("untrained", "shuffled"):
            latent = int(sae.encode(x[on_words]).mean(0).argmax())
        elif control == "near miss" and not seed % 2:
            words = setting.groups[other]
    save_small(model, config, folder)
    save_sae(sae, folder)
    write_texts(folder, setting.texts)
    return {"latent": latent, "hook_point": setting.hook_point, "words": list(words), "tokens": tokens_of(words)}


def plant(model: HookedModel, setting: Setting, features: Tensor, effect: float) -> None:
    """Add features `[groups, d_model]` to random weights: written, carried to later positions, and read."""
    head = model.blocks[setting.layer + 1].attn
    size = setting.config.d_head
    for matrix in (head.q, head.k):
        matrix.original_component.weight[:size] = 0  # the first head attends evenly to all positions
    for at, (words, feature) in enumerate(zip(setting.groups, features, strict=True)):
        model.W_E[tokens_of(words)] = model.W_E[tokens_of(words)] + effect * READ * feature
        model.unembed.original_component.weight[tokens_of(words)] += effect * RAISED * feature
        head.v.original_component.weight[at] += effect * feature
        head.o.original_component.weight[:, at] += effect * CARRIED * feature


def dictionary(setting: Setting, reads: Tensor, writes: Tensor, x: Tensor, share: float) -> SAE:
    """Return latents that read and write directions `[d_sae, d]`, each active on some share of the rows `x [n, d]`."""
    thresholds = torch.quantile(x @ reads.T, 1 - share, dim=0)
    weights = Weights(reads.T.contiguous(), -thresholds, writes, torch.zeros(x.shape[1]))
    return ReLUSAE(weights, metadata=SAEMetadata(model="model", hook_point=setting.hook_point))


def answer(folder: Path, details: Details) -> Answer:
    """Describe the dictionary on the texts, and prove the latent on the words of the claim."""
    texts, point = read_texts(folder), details["hook_point"]
    model, sae = load_model(str(folder)), load_sae(folder)
    documents = [Document(text, str(at), "") for at, text in enumerate(texts.documents)]
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        config = RecordConfig(tokens=sum(map(len, texts.documents)), context_length=LENGTH + 1, dtype="float32")
        record(model, documents, work / "recording", config, hook_points=[point])
        build_features(
            Described(dictionary=sae, name="sae:case", folder=work / "features", relations=False),
            open_recording(work / "recording"),
            model,
            FeaturesConfig(window=LENGTH, index=False),
        )
        proof = prove(
            model, sae, work / "features", details["latent"], ProofConfig(new_tokens=1),
            prompts=texts.prompts, words=details["tokens"], tests=CLAIMED,
        )  # fmt: skip
    holding, tested = proof.holds(), {test.name for test in proof.measures if test.tested}
    failing = tested - {*holding, *proof.undecided()}
    outcome = "undecided"
    if "fires" in holding and not set(EFFECTS).isdisjoint(holding):
        outcome = "supported"
    elif "fires" in failing or failing.issuperset(EFFECTS):
        outcome = "not supported"
    return Answer(outcome=outcome, why=proof.verdict())
