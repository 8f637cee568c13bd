"""What one model has that another has not: `workbench difference CROSSCODER`, `workbench changes BASE TUNED`."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tyro

from interp.errors import ConfigError, PromptError
from workbench.terminal import Options, bar, say, slug, wrote


@dataclass(frozen=True, kw_only=True)
class Difference(Options):
    """Tell the latents of a crosscoder of two models apart: the first one's, the second one's, and shared ones.

    Example: workbench train base --others tuned --kind crosscoder --name pair; workbench difference pair

    A latent that writes into one model only may be an artefact of training: latent scaling says which of them the other
    model has after all. Trust the confirmed ones, and BatchTopK more than L1.
    """

    crosscoder: tyro.conf.Positional[str]
    """Name of a crosscoder in the workspace, trained on two recordings of the same tokens."""
    top: int = 10
    """Latents of one model to print."""

    def run(self) -> None:
        from interp.artifacts import Draft, write_json, write_table
        from interp.recording.live import open_recording
        from saes.evaluation.crosscoder_latents import compare_models, latent_table
        from saes.kinds.crosscoder import CrosscoderSAE
        from saes.weights.folder import load_sae

        workspace = self.open_workspace()
        threads = self.use_threads()
        trained = workspace.manifest("sae", self.crosscoder)
        sae = load_sae(workspace.path("sae", self.crosscoder))
        if not isinstance(sae, CrosscoderSAE):
            raise ConfigError(f"{self.crosscoder} is no crosscoder; train one on two recordings with --kind crosscoder")
        names = [str(place["recording"]) for place in sae.places]
        if len(set(names)) != 2:
            raise ConfigError(
                f"{self.crosscoder} reads {len(names)} places of {', '.join(dict.fromkeys(names))}; a difference needs "
                "one place of two models"
            )
        parents = {f"saes/{self.crosscoder}": trained.content_hash}
        parents |= {f"recordings/{name}": workspace.manifest("recording", name).content_hash for name in names}
        folder = workspace.path("evaluation", self.name or slug(f"difference-{self.crosscoder}"))
        config = {"sae": self.crosscoder, "recordings": names}
        draft = Draft.open(folder, kind="evaluation", config=config, seed=self.seed, overwrite=self.overwrite)
        fraction = trained.config.get("heldout_fraction", 0.1)
        with bar("held-out tokens", "tokens") as progress:
            recordings = [open_recording(workspace.path("recording", name)) for name in names]
            found = compare_models(sae, recordings, heldout_fraction=fraction, progress=progress)
        write_json(draft.path / "difference.json", found.summary())
        write_table(draft.path / "latents.parquet", latent_table(found))
        draft.finish(summary=found.summary(), parents=parents, threads=threads)
        wrote(folder, str(found))
        of_second = found.latents("second only", confirmed=True)
        of_first = found.latents("first only", confirmed=True)
        for latents, whose in ((of_second, found.second), (of_first, found.first)):
            for latent in latents[: self.top]:
                ratios = f"{float(found.error_ratio[latent]):.2f} and {float(found.recons_ratio[latent]):.2f}"
                say(
                    f"      latent {latent:<6} of {whose} only: active on {int(found.n_fired[latent]):,} tokens, "
                    f"relative norm {float(found.relative_norm[latent]):.2f}, error and reconstruction ratio {ratios}"
                )


@dataclass(frozen=True, kw_only=True)
class Changes(Options):
    """Say what fine-tuning changed: weights, the residual stream, heads, and which part brings the behaviour along.

    Example: workbench changes ./base ./tuned --corpus facts.jsonl --continuations ./base-a ./base-b ./base-c

    Both are checkpoints of one model. Every number stands beside that of models that differ in nothing: continuations
    of the base where you have them, else the base rounded to bfloat16. Features: `workbench difference`.
    """

    base: tyro.conf.Positional[str]
    """A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."""
    tuned: tyro.conf.Positional[str]
    """The same model, trained on."""
    corpus: str = "docstrings"
    """Text on which the change should show; "random" for random tokens that repeat (models without a tokenizer)."""
    control: str | None = None
    """Text on which it should not."""
    continuations: tuple[str, ...] = ()
    """Three or more models trained on from the base without what you ask about. Default: rounding is the null."""
    prompts: int = 32
    """Contexts of each text."""
    context_length: int = 64
    random_changes: int = 5
    """Random changes beside each transplanted part."""
    batch_size: int = 8
    device: str | None = None
    """cpu, cuda, mps. Default: the best there is."""

    def run(self) -> None:
        from interp.artifacts import Draft, write_json
        from interp.changes.report import what_changed
        from interp.models.adapter import weight_hash
        from interp.models.loading import load_model

        workspace = self.open_workspace()
        threads = self.use_threads()
        models = {name: load_model(name, device=self.device) for name in (self.base, self.tuned, *self.continuations)}
        base, tuned = models[self.base], models[self.tuned]
        folder = workspace.path("evaluation", self.name or slug(f"changes-{_short(self.base)}-{_short(self.tuned)}"))
        texts = {spec: self._tokens(base, spec) for spec in dict.fromkeys([self.corpus, self.control or self.corpus])}
        hashes = {name: weight_hash(model) for name, model in models.items()}
        config = {
            "base": self.base, "tuned": self.tuned, "continuations": list(self.continuations), "texts": list(texts),
            "prompts": self.prompts, "context_length": self.context_length, "random_changes": self.random_changes,
            "weight_hashes": hashes,
        }  # fmt: skip
        draft = Draft.open(folder, kind="evaluation", config=config, seed=self.seed, overwrite=self.overwrite)
        with bar("changes") as progress, _discarded(draft):
            found = what_changed(
                base, tuned, texts, continuations=[models[name] for name in self.continuations],
                names=(self.base, self.tuned), n_random=self.random_changes, batch_size=self.batch_size, seed=self.seed,
                progress=progress,
            )  # fmt: skip
        write_json(draft.path / "changes.json", found.to_json())
        parents = {f"model:{name}": known for name, known in hashes.items()}
        draft.finish(summary=found.summary(), parents=parents, threads=threads)
        say(found.table() + "\n")
        wrote(folder, found.findings()[0])
        for finding in found.findings()[1:]:
            say(f"      {finding}")

    def _tokens(self, model: Any, spec: str) -> Any:
        """`[prompts, context_length]` of a corpus, from as many documents, BOS in front where there is one."""
        import torch

        from interp.models.adapter import ordinary_tokens
        from interp.models.identity import tokenizer_of
        from interp.models.toys import repeating_rows
        from interp.runtime import make_generator
        from interp.text.corpora import open_corpus

        length = min(self.context_length, model.cfg.n_ctx)
        if spec != "random":
            tokenizer, rows = tokenizer_of(model), []
            opening = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
            for document in open_corpus(spec, seed=self.seed):
                row = [*opening, *tokenizer.encode_batch([document.text[: 12 * length]])[0]][:length]
                rows += [row] if len(row) == length else []
                if len(rows) == self.prompts:
                    return torch.tensor(rows)
            raise PromptError(
                f"{self.prompts} documents of at least {length} tokens were expected, {spec} has {len(rows)}; ask for "
                "fewer (--prompts) or shorter ones (--context-length)"
            )
        ids, generator = ordinary_tokens(model), make_generator(self.seed, "random text")
        return ids[repeating_rows(self.prompts, length, len(ids), max(2, length // 4), max(2, length // 2), generator)]


def _short(spec: str) -> str:
    """The last part of a path or id."""
    return spec.rstrip("/").rsplit("/", 1)[-1]


@contextlib.contextmanager
def _discarded(draft: Any) -> Iterator[None]:
    """Nothing is left behind by a comparison that failed or was stopped: it starts anew anyway."""
    try:
        yield
    except BaseException:
        draft.discard()
        raise
