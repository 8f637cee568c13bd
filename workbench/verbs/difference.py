"""`workbench difference CROSSCODER`: what one model has that another has not."""

from dataclasses import dataclass

import tyro

from interp.errors import ConfigError
from workbench.options import Options, slug
from workbench.terminal import bar, say, wrote


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
        from saes.kinds.crosscoder import CrosscoderSAE
        from saes.model_difference import compare_models, latent_table
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
