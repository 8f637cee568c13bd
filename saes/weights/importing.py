"""A peer's checkpoint before its import: where it lies, and the model and hook points that it belongs to.

Model and hook points named by the files must be those that the caller names, and the widths must be those of the model:
a dictionary applied at another hook point gives plausible numbers without meaning.

A checkpoint on the hub is downloaded into the local hub cache and read from there like any other folder. Only weights
and their descriptions are fetched, never code.

SAELens' names of dictionaries on the hub: `RELEASE/ID`, such as `gpt2-small-res-jb/blocks.8.hook_resid_pre`.

`saelens_releases.txt.xz` lists the releases of `sae_lens/pretrained_saes.yaml` (its licence lies next to it), 19 kB:

    RELEASE REPOSITORY [REASON]     a release; with a reason, such as a loader of its own, it is refused
     ID [PATH]                      one of its dictionaries, where its path in the repository is not its id

`python -m tools.releases` writes it. SAELens itself is not needed, and the layout of a repository is not guessed.
"""

import lzma
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import NamedTuple

from interp.artifacts import sha256_file
from interp.errors import ConfigError, MismatchError, MissingError, UnknownNameError
from interp.names import canonical_hook_point
from interp.text.corpora import hub_reachable
from saes.kinds.base import SAE, SAEMetadata
from saes.weights.imported import FileEntry

TABLE = Path(__file__).with_name("saelens_releases.txt.xz")


class Release(NamedTuple):
    """One release: its repository, the path of each id, and why it cannot be read (empty where it can)."""

    repository: str
    paths: dict[str, str]
    reason: str


@cache
def releases() -> dict[str, Release]:
    """Return every release by its name."""
    by_name: dict[str, Release] = {}
    for line in lzma.decompress(TABLE.read_bytes()).decode().splitlines():
        if line.startswith(" "):
            name, _, path = line[1:].partition(" ")
            next(reversed(by_name.values())).paths[name] = path or name
        else:
            release, repository, *reason = line.split(" ", 2)
            by_name[release] = Release(repository, {}, "".join(reason))
    return by_name


def located(spec: str) -> tuple[str, str] | None:
    """Return repository and path of `RELEASE/ID`; None for what does not begin with a release.

    Raises `UnknownNameError` (no such id, or nearly the name of a release), `MismatchError` (a release that only
    SAELens reads).
    """
    name, _, inside = spec.partition("/")
    if name not in releases():
        if get_close_matches(name, releases(), 1, 0.9):
            raise UnknownNameError("release of SAELens", name, releases())
        return None
    release = releases()[name]
    if release.reason:
        raise MismatchError(
            f"{name} is read by SAELens alone ({release.reason}); load it there, write it with save_model, and give "
            "that folder"
        )
    if inside not in release.paths:
        raise UnknownNameError(f"dictionary of the release {name}", inside, release.paths, f"Write {name}/ID")
    return release.repository, release.paths[inside]


SAME_MODEL = {"gpt2-small": "gpt2"}
"""Names that TransformerLens and the hub give to one model."""
MAX_FILES = 64


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Model and hook points that a dictionary belongs to. An empty hook point means the one that its files name."""

    model: str
    weight_hash: str
    hook_point: str = ""
    hook_point_out: str = ""
    """of a transcoder: the hook point that it predicts"""


def agree_on_origin(sae: SAE, origin: Origin, *, allow_mismatch: bool = False) -> SAEMetadata:
    """Return the dictionary's metadata, with the model and hook points of `origin`.

    Raises `MismatchError` where the files name others, `ConfigError` where neither names a hook point.
    """
    metadata = sae.metadata
    points = (canonical_hook_point(name) if name else "" for name in (metadata.hook_point, metadata.hook_point_out))
    wanted = (canonical_hook_point(name) if name else "" for name in (origin.hook_point, origin.hook_point_out))
    named, chosen = (*points, metadata.weight_hash), (*wanted, origin.weight_hash)
    for what, theirs, ours in zip(("hook point", "target hook point", "model weights"), named, chosen, strict=True):
        if theirs and ours and theirs != ours and not allow_mismatch:
            raise MismatchError(
                f"the dictionary's files say {what} {theirs}, but {ours} was given; give the one it was trained on, "
                "or allow another on purpose"
            )
    if metadata.model and not allow_mismatch and not same_model(metadata.model, origin.model):
        raise MismatchError(
            f"the dictionary's files say it belongs to {metadata.model}, but the model given is {origin.model}; "
            "give that model, or allow another on purpose"
        )
    hook_point, target = chosen[0] or named[0], chosen[1] or named[1]
    if not hook_point:
        raise ConfigError("the dictionary's files do not say which hook point it reads; add --hook-point")
    if not sae.subtracts_b_dec and sae.d_in != sae.d_out and not target:
        raise ConfigError("the dictionary's files do not say which hook point it predicts; add --hook-point-out")
    return replace(
        metadata, model=origin.model, weight_hash=origin.weight_hash, hook_point=hook_point, hook_point_out=target
    )


def same_model(theirs: str, ours: str) -> bool:
    """Return whether two names agree after case and owner are removed.

    >>> same_model("HuggingFaceTB/SmolLM2-135M", "smollm2-135m")
    True
    """
    a, b = (name.rstrip("/").rsplit("/", 1)[-1].lower() for name in (theirs, ours))
    return SAME_MODEL.get(a, a) == SAME_MODEL.get(b, b)


def check_widths(sae: SAE, metadata: SAEMetadata, widths: dict[str, int]) -> None:
    """Raise `MismatchError` where the model's width at a hook point differs from the dictionary's."""
    for name, width in ((metadata.hook_point, sae.d_in), (metadata.hook_point_out or metadata.hook_point, sae.d_out)):
        if widths[name] != width:
            raise MismatchError(
                f"the dictionary takes vectors of {width}, {name} of {metadata.model} has {widths[name]}; "
                "is it another model's, or another hook point's?"
            )


def source_files(path: Path) -> dict[str, FileEntry]:
    """Return hash and size of the file that was read, or of the files directly in the folder."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return {file.name: FileEntry(sha256=sha256_file(file), bytes=file.stat().st_size) for file in files[:MAX_FILES]}


PREFIX = "hub:"
_DESCRIPTIONS = ("json", "yaml", "yml")
_WEIGHTS = ("safetensors", "npz", "pt")
_SPEC = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<inside>[\w.=/-]+))?")


def is_hub_spec(spec: str) -> bool:
    """Return whether a spec names the hub: `hub:...` always, `OWNER/NAME...` when no such path exists."""
    return spec.startswith(PREFIX) or (bool(_SPEC.fullmatch(spec)) and not Path(spec).expanduser().exists())


def checkpoint_path(spec: str) -> Path:
    """Return `spec` as a local path; what it names on the hub is downloaded, or read from the cache offline.

    `RELEASE/ID` are SAELens' names (`saes/weights/importing.py`), where no such path exists; `hub:OWNER/NAME[/FOLDER or
    /FILE]` is a part of a repository. Raises `ConfigError` (not a hub name), `MissingError` (no such repository or
    part of it, or no network), and for SAELens' names what `located` raises.
    """
    local = Path(spec).expanduser()
    if not spec.startswith(PREFIX) and not local.exists() and (location := located(spec)):
        return _fetched(spec, *location)
    if not is_hub_spec(spec):
        return local.absolute()
    parts = _SPEC.fullmatch(spec.removeprefix(PREFIX))
    if parts is None or ".." in spec:
        raise ConfigError(f"a dictionary on the hub is written hub:OWNER/NAME or hub:OWNER/NAME/FOLDER, got {spec!r}")
    return _fetched(spec, parts["repository"], (parts["inside"] or "").strip("/"))


def _fetched(spec: str, repository: str, inside: str) -> Path:
    """Return a part of a repository in the local cache: a folder, or a file with what describes it."""
    path = _snapshot(spec, repository, inside) / inside
    if not path.exists():
        raise MissingError(f"{repository} is on the hub, but has no {inside} with weights in it")
    return path


def _snapshot(spec: str, repository: str, inside: str) -> Path:
    from huggingface_hub import snapshot_download

    online = hub_reachable()
    is_file = inside.rpartition(".")[2] in _WEIGHTS
    folder, wanted = (inside.rpartition("/")[0], _DESCRIPTIONS) if is_file else (inside, (*_DESCRIPTIONS, *_WEIGHTS))
    patterns = [f"{folder}/*.{suffix}".lstrip("/") for suffix in wanted] + [inside] * is_file
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=not online))
    except Exception as error:  # the client raises many unrelated types; each becomes one line
        if not online:
            raise MissingError(
                f"{spec} is neither a path here nor in the local hub cache, and the hub cannot be reached; connect to "
                f"the network once, or fetch {inside or 'all files'} of {repository} elsewhere and give that folder"
            ) from error
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MissingError(f"{spec} cannot be fetched from the hub ({reason}); check the name") from error
