"""`workbench compare ...`: dictionaries or models compared.

- `saes SAE SAE ...`: dictionaries at one sparsity, with baselines.
- `sizes`: the error of dictionaries against their size and sparsity, a scaling law with intervals.
- `models BASE TUNED`: fine-tuning effects in weights, residual stream and heads.
- `latents CROSSCODER`: latents of a crosscoder that only one of its two models has.
"""

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from interp.artifacts import as_json, hash_json
from interp.errors import ConfigError, PromptError, WorkbenchError
from interp.models.hooked import HookedModel
from interp.options import Corpus, HookPoint, Means, ModelName, RecordingName, SAEName
from workbench.analysis import Analysis, Run
from workbench.terminal import OnDevice, RunsModel, Seeded, Threaded, Writes, bar, say, slug, wrote
from workbench.verbs.evaluate import Probes, run_probes

if TYPE_CHECKING:
    import pyarrow as pa

    from interp.changes.comparison import ModelComparison
    from interp.workspace import Workspace
    from saes.evaluation.latent_comparison import LatentComparison
    from saes.evaluation.matching import SharedFeatures
    from saes.kinds.base import SAE


@dataclass(frozen=True, kw_only=True)
class CompareSAEs(Probes, Writes, Threaded, RunsModel):
    """Compare SAEs of one hook point at the same sparsity.

    Example: workbench compare saes demo demo-topk

    Each SAE is measured at its own L0, and with all of them reduced to the smallest L0. Baselines: principal
    components, the hook point's own coordinates and an untrained SAE. FVU values at different L0 are not comparable,
    and a lower FVU at the same L0 does not prove better features. For a recording of planted features the table gives
    the number recovered.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "saes")

    saes: Annotated[tyro.conf.Positional[tuple[SAEName, ...]], tyro.conf.arg(metavar="SAE [SAE ...]")]
    """Names of SAEs in the workspace."""
    recording: RecordingName | None = None
    """Recording to compare on. Default: the one that the first SAE was trained on."""
    l0: float | None = None
    """L0 to which all are reduced. Default: the smallest among the SAEs."""
    baselines: bool = True
    """Add principal components, coordinates and an untrained SAE to the table."""
    contexts: int = 0
    """Held-out contexts for the loss inside the model; 0 skips that part."""
    match: bool = False
    """Count the features that every two of the SAEs share (minutes for dictionaries of 16,384)."""
    allow_other_weights: bool = False
    """Compare SAEs trained on other weights than the recording's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contexts < 0:
            raise ConfigError(f"contexts must be at least 0, got {self.contexts}")

    def run(self) -> None:
        from interp.artifacts import Draft, write_json, write_table
        from saes.evaluation.compare import compare
        from saes.evaluation.toy_recovery import read_synthetic
        from workbench.opening import open_dictionary, open_recording_model

        workspace = self.open_workspace()
        threads = self.use_threads()
        if not self.saes:
            raise ConfigError("no SAE was named; `workbench compare saes SAE SAE` compares two")
        device = self.use_device()
        recording = open_dictionary(workspace, self.saes[0], self.recording, device=device).recording
        chosen = [open_dictionary(workspace, name, recording.folder.name, device=device) for name in self.saes]
        if any(each.is_neurons for each in chosen):
            raise ConfigError("name SAEs only: at mlp.hook_post the table's `coordinates` are the neurons")
        fractions = [workspace.manifest("sae", each.name).config.get("heldout_fraction", 0.1) for each in chosen]
        saes = {each.name: each.load_sae(allow_other_weights=self.allow_other_weights) for each in chosen}
        parents = {recording.key: recording.manifest.content_hash}
        for each in chosen:
            parents |= each.parents
        config = {
            "saes": list(saes),
            "recording": recording.folder.name,
            "l0": self.l0,
            "baselines": self.baselines,
            "contexts": self.contexts,
            "probing": as_json(self.probe_settings(recording)),
        }
        folder = workspace.path("sae_comparison", self.name or slug("compare-" + "-".join(saes)))
        draft = Draft.open(folder, kind="sae_comparison", config=config, seed=self.seed, overwrite=self.overwrite)
        planted = recording.planted
        held = min(fractions)  # held-out splits are nested, so this one is held out for all of them
        tokens = documents = None
        if self.contexts and not planted:
            tokens, documents = recording.contexts_and_documents(
                split="heldout", limit=self.contexts, heldout_fraction=held
            )
        probing = None
        try:
            if self.probing:
                with bar("probing", "tasks") as progress:
                    probing = run_probes(saes, recording, self.probing_config(), self.labels, held, progress)
            with bar("comparing", "dictionaries") as progress:
                found = compare(
                    saes,
                    recording,
                    l0=self.l0,
                    baselines=self.baselines,
                    model=open_recording_model(recording, device=device)
                    if tokens is not None and len(tokens)
                    else None,
                    tokens=tokens,
                    documents=documents,
                    probing=probing.rows() if probing else None,
                    groups=self.groups(workspace),
                    truth=read_synthetic(recording) if planted else None,
                    heldout_fraction=held,
                    seed=self.seed,
                    progress=progress,
                )
        except WorkbenchError:
            draft.discard()  # it holds nothing to resume
            raise
        matched = _matched(saes, self.seed) if self.match else {}
        shared = {pair: _shares(each) for pair, each in matched.items()}
        reversals = [str(each) for each in found.reversals]
        whole = {**asdict(found), "reversals": reversals, "shared": shared, "probing": as_json(probing)}
        write_json(draft.path / "comparison.json", whole)
        if matched:
            write_table(draft.path / "matches.parquet", _match_table(matched))
        summary = {"l0": found.l0, **{f"fvu_{row.name}": row.matched.fvu for row in found.rows}}
        draft.finish(summary=summary, parents=parents, threads=threads)
        say("\n".join([found.table(), *(f"{pair}: {each['finding']}" for pair, each in shared.items())]))
        if probing:
            say(f"\nprobing, balanced accuracy on {probing.n_documents} held-out documents:\n{probing.table()}")
        best = min(found.rows, key=lambda row: row.matched.fvu)
        wrote(folder, f"at L0 {found.l0:.1f} {best.name} reconstructs best (FVU {best.matched.fvu:.4f})")

    def groups(self, workspace: "Workspace") -> dict[str, str]:
        """Return, for each SAE, the first one whose settings differ in the seed at most."""
        firsts: dict[str, str] = {}
        found = {}
        for name in self.saes:
            config = workspace.manifest("sae", name).config
            if config.get("kind") != "imported":
                found[name] = firsts.setdefault(hash_json({**config, "seed": None}), name)
        return found


def _matched(saes: dict[str, "SAE"], seed: int) -> dict[str, "SharedFeatures"]:
    """Return for every pair of SAEs, `"one, two"`, the features they share."""
    from saes.evaluation.matching import match_features

    found, pairs = {}, list(combinations(saes, 2))
    with bar("matching features", "pairs") as progress:
        for at, (one, two) in enumerate(pairs):
            progress(at, len(pairs), {})
            found[f"{one}, {two}"] = match_features(saes[one], saes[two], seed=seed)
    return found


def _shares(each: "SharedFeatures") -> dict[str, Any]:
    """Return the shares of a pair of SAEs, in numbers and as a sentence."""
    names = [name + end for name in ("shared", "mean_cosine") for end in ("", "_random")]
    return {**{name: getattr(each, name) for name in names}, "finding": str(each)}


def _match_table(matched: dict[str, "SharedFeatures"]) -> "pa.Table":
    """Return the matched latents of every pair of SAEs; `random` are the cosines of the null, in any order."""
    import pyarrow as pa

    rows = [
        {"pair": pair, **row, "random": random}
        for pair, each in matched.items()
        for row, random in zip(each.to_records(), each.random_cosines.tolist(), strict=True)
    ]
    return pa.Table.from_pylist(rows)


@dataclass(frozen=True, kw_only=True)
class CompareSizes(Writes, Seeded):
    """Fit a scaling law L(n, k) to dictionaries of several sizes.

    Example: workbench train demo --kind topk --d-sae 512 1024 2048 4096 --k 16 32 64 --name sweep
             workbench compare sizes

    Needs at least three sizes and two values of k, trained alike. The loss is the FVU on held-out documents (Gao et al.
    2024, arXiv 2406.04093). Reports the exponent of the size for every k, an irreducible error if there is one, and how
    well the smaller sizes predict the largest. The SAE page draws the fit.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "sizes")

    saes: Annotated[tyro.conf.Positional[tuple[SAEName, ...]], tyro.conf.arg(metavar="SAE [SAE ...]")] = ()
    """Names of SAEs in the workspace. Default: all finished ones of one kind that were trained alike."""
    recording: RecordingName | None = None
    """Only those trained on this recording."""
    hook_point: HookPoint | None = None
    """Only those of this hook point."""
    kind: Annotated[str, Means("KIND")] = "topk"
    """Only those of this kind."""
    tokens: int | None = None
    """Only those trained on this many tokens (their --tokens)."""
    n_bootstrap: int = 200
    """Bootstrap refits for the intervals."""

    def run(self) -> None:
        import numpy as np

        from interp.artifacts import Draft, write_json
        from saes.evaluation.scaling import fit_scaling, runs_of

        workspace = self.open_workspace()
        if self.n_bootstrap < 20:
            raise ConfigError(f"n_bootstrap must be at least 20, got {self.n_bootstrap}: fewer refits give no interval")
        runs = runs_of(
            workspace,
            self.saes,
            recording=self.recording,
            hook_point=self.hook_point,
            kind=self.kind,
            tokens=self.tokens,
        )
        fit = fit_scaling(runs, n_bootstrap=self.n_bootstrap, generator=np.random.default_rng(self.seed))
        manifests = [workspace.manifest("sae", run.name) for run in runs]
        shared = manifests[0].config
        config = {
            "saes": [run.name for run in runs],
            **{key: shared.get(key) for key in ("recording", "hook_point", "kind", "tokens")},
            "n_bootstrap": self.n_bootstrap,
        }
        name = self.name or slug(f"sizes-{shared['recording']}-{shared['kind']}")
        folder = workspace.path("size_law", name)
        draft = Draft.open(folder, kind="size_law", config=config, seed=self.seed, overwrite=self.overwrite)
        write_json(draft.path / "scaling.json", fit.to_json())
        summary = {f"exponent_k{k}": each.estimate for k, each in fit.exponents.items()}
        errors = [abs(each.error) for each in fit.left_out]
        summary |= {"largest_predicted_within": max(errors)} if errors else {}
        draft.finish(summary=summary, parents={f"saes/{m.name}": m.content_hash for m in manifests})
        say(f"{len(runs)} runs of {shared['kind']}, {shared['tokens']:,} tokens each, at {shared['hook_point']}")
        wrote(folder, "\n      ".join(fit.findings))


@dataclass(frozen=True, kw_only=True)
class CompareLatents(Threaded, OnDevice, Analysis["LatentComparison"]):
    """Sort a crosscoder's latents into shared ones and those of one model.

    Example: workbench train base --others tuned --kind crosscoder --name pair; workbench compare latents pair

    A latent that writes into one model only may be an artefact of training. Latent scaling (Minder et al. 2025, arXiv
    2504.02922) confirms the latents that the other model lacks. Crosscoders trained with BatchTopK have fewer such
    artefacts than those trained with L1.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "latents")
    makes: ClassVar[str] = "latent_comparison"

    crosscoder: Annotated[tyro.conf.Positional[SAEName], tyro.conf.arg(metavar="CROSSCODER")]
    """Name of a crosscoder in the workspace, trained on two recordings of the same tokens."""

    def default_name(self) -> str:
        return slug(f"latents-{self.crosscoder}")

    def measure(self, run: Run) -> "LatentComparison":
        from saes.evaluation.crosscoder_latents import compare_models
        from saes.kinds.crosscoder import CrosscoderSAE

        sae = run.sae(self.crosscoder)
        if not isinstance(sae, CrosscoderSAE):
            raise ConfigError(
                f"{self.crosscoder} is not a crosscoder; train one on two recordings with --kind crosscoder"
            )
        names = [str(each["recording"]) for each in sae.sites]
        if len(set(names)) != 2:
            raise ConfigError(
                f"a comparison needs one hook point of two models, {self.crosscoder} reads {len(names)} of "
                f"{', '.join(dict.fromkeys(names))}; train a crosscoder on two recordings (--others)"
            )
        recordings = [run.recording(name) for name in names]
        held = run.manifest("sae", self.crosscoder).config.get("heldout_fraction", 0.1)
        with run.progress("held-out tokens", "tokens") as progress:
            return compare_models(sae, recordings, name=self.crosscoder, heldout_fraction=held, progress=progress)


@dataclass(frozen=True, kw_only=True)
class CompareModels(Seeded, Threaded, RunsModel, Analysis["ModelComparison"]):
    """Compare a model with a fine-tuned version of it.

    Example: workbench compare models ./base ./tuned --corpus facts.jsonl --continuations ./base-a ./base-b ./base-c

    Compares weights, residual stream and heads, and transplants parts of the tuned model into the base to find those
    that carry the change of behaviour. The null is a set of models without the change in question: continuations of the
    base where you have them, else the base rounded to bfloat16. For features, see
    `workbench compare latents`; for CKA between the layers of any two models, `workbench geometry compare`.
    """

    words: ClassVar[tuple[str, ...]] = ("compare", "models")
    makes: ClassVar[str] = "model_comparison"

    base: Annotated[tyro.conf.Positional[ModelName], tyro.conf.arg(metavar="BASE")]
    """A known name (`workbench models`), a Hugging Face id or folder, or a .gguf file."""
    tuned: Annotated[tyro.conf.Positional[ModelName], tyro.conf.arg(metavar="TUNED")]
    """The fine-tuned checkpoint of the same model."""
    corpus: Corpus = "docstrings"
    """Text on which the change is expected; "random" for repeated random tokens (models without a tokenizer)."""
    control: Corpus | None = None
    """Text on which no change is expected."""
    continuations: tuple[ModelName, ...] = ()
    """Three or more models trained further from the base without the change in question, as the null."""
    prompts: int = 32
    """Contexts of each text."""
    context_length: int = 64
    """Tokens per context."""
    random_changes: int = 5
    """Random changes of the same size as the null of each transplanted part."""
    batch_size: int = 8
    """Contexts per forward pass."""

    def default_name(self) -> str:
        return slug(f"models-{_short(self.base)}-{_short(self.tuned)}")

    def measure(self, run: Run) -> "ModelComparison":
        from interp.changes.report import what_changed
        from interp.text.corpora import open_corpus

        specs = dict.fromkeys([self.corpus, self.control or self.corpus])
        for spec in specs:
            if spec != "random":
                open_corpus(spec)  # a mistake in its name shows before a model is loaded
        base, tuned, *continuations = (run.model(name) for name in (self.base, self.tuned, *self.continuations))
        texts = {spec: self._tokens(base, spec) for spec in specs}
        with run.progress("changes") as progress:
            return what_changed(
                base, tuned, texts, continuations=continuations, names=(self.base, self.tuned),
                n_random=self.random_changes, batch_size=self.batch_size, seed=self.seed, progress=progress,
            )  # fmt: skip

    def _tokens(self, model: HookedModel, spec: str) -> Any:
        """Return tokens `[prompts, context_length]` of as many documents of a corpus, BOS first where there is one."""
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
    """Return the last part of a path or id."""
    return spec.rstrip("/").rsplit("/", 1)[-1]
