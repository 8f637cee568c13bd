"""`workbench import PATH`: a dictionary from elsewhere, checked and brought into the workspace."""

from dataclasses import dataclass

import tyro

from workbench.options import Options, slug
from workbench.terminal import say, wrote


@dataclass(frozen=True, kw_only=True)
class Import(Options):
    """Bring in an SAE or a transcoder that another tool wrote: SAELens, dictionary_learning, sparsify, Gemma Scope, ...

    Example: workbench import checkpoints/layers.9 --model smollm2-135m --hook-point blocks.9.hook_resid_post

    The files say which format it is. Its numbers are compared with the format's own arithmetic, and once more whenever
    it is loaded or verified.
    """

    path: tyro.conf.Positional[str]
    """The checkpoint's folder or file, or hub:OWNER/NAME[/FOLDER]."""
    model: str
    """The model whose activations it was trained on: a name as for `workbench record`."""
    hook_point: str | None = None
    """Where it reads. Default: what its files say."""
    hook_point_out: str | None = None
    """Where a transcoder writes. Default: what its files say."""
    format: str | None = None
    """Read it as this format instead of recognising it."""
    allow_other_place: bool = False
    """Import although the files name another model or hook point."""

    def run(self) -> None:
        from interp.models.adapter import available_hook_points, weight_hash
        from interp.models.loading import load_model
        from interp.names import check_hook_points
        from interp.recording.preflight import probe_widths
        from saes.weights.hub import checkpoint_path
        from saes.weights.importing import Place, import_dictionary
        from saes.weights.read import find_format

        workspace = self.open_workspace()
        self.use_threads()
        path = checkpoint_path(self.path)
        find_format(path, self.format)  # the clearer error before a model is loaded
        folder = workspace.path("sae", self.name or slug(path.stem if path.is_file() else path.name))
        model = load_model(self.model)
        available = available_hook_points(model)
        manifest = import_dictionary(
            path,
            folder,
            Place(
                model=self.model,
                weight_hash=weight_hash(model),
                hook_point=self.hook_point or "",
                hook_point_out=self.hook_point_out or "",
            ),
            measure_widths=lambda names: probe_widths(model, check_hook_points(names, available, model.cfg.n_layers)),
            format=self.format,
            allow_other_place=self.allow_other_place,
            overwrite=self.overwrite,
        )
        wrote(folder, describe_import(manifest.summary))
        say(f"      look at it through a recording: workbench features {folder.name} --recording NAME")


def describe_import(summary: dict) -> str:
    """What came, and how well its numbers agree with its own format's."""
    error = max(summary["self_check"][f"{part}_error"] for part in ("encode", "encode_sparse", "recons"))
    return (
        f"{summary['d_sae']:,} features at {summary['hook_point']} ({summary['architecture']}, from "
        f"{summary['format']}); its numbers agree with that format's own to {error:.0e}"
    )
