"""A checkpoint on the hub: its files in the local hub cache, read from there like any other folder.

Only weights and their descriptions are fetched, never code.
"""

import re
from pathlib import Path

from interp.errors import ConfigError, MissingError
from interp.text.hub import hub_reachable

PREFIX = "hub:"
_SUFFIXES = ("json", "safetensors", "npz", "pt", "yaml", "yml")
_SPEC = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<inside>[\w.=/-]+))?")


def is_hub_spec(spec: str) -> bool:
    """`hub:...` always; `OWNER/NAME...` when there is no such path here."""
    return spec.startswith(PREFIX) or (bool(_SPEC.fullmatch(spec)) and not Path(spec).expanduser().exists())


def checkpoint_path(spec: str) -> Path:
    """`spec` as a local path; `hub:OWNER/NAME[/FOLDER or /FILE]` is downloaded, or found in the cache when offline.

    Raises `ConfigError` (not a hub name), `MissingError` (no such repository or part of it, or no network).
    """
    if not is_hub_spec(spec):
        return Path(spec).expanduser().absolute()
    found = _SPEC.fullmatch(spec.removeprefix(PREFIX))
    if found is None or ".." in spec:
        raise ConfigError(f"a dictionary on the hub is written hub:OWNER/NAME or hub:OWNER/NAME/FOLDER, got {spec!r}")
    inside = (found["inside"] or "").strip("/")
    path = _snapshot(spec, found["repository"], inside) / inside
    if not path.exists():
        raise MissingError(f"{found['repository']} is on the hub, but has no {inside} with weights in it")
    return path


def _snapshot(spec: str, repository: str, inside: str) -> Path:
    from huggingface_hub import snapshot_download

    online = hub_reachable()
    wanted = [f"{inside}/*.{suffix}" if inside else f"*.{suffix}" for suffix in _SUFFIXES]
    try:
        folder = snapshot_download(
            repository, allow_patterns=[*wanted, *([inside] if inside else [])], local_files_only=not online
        )
    except Exception as error:  # the client raises many unrelated types; each becomes one line
        if not online:
            raise MissingError(
                f"{spec} is neither a path here nor in the local hub cache, and the hub cannot be reached; connect to "
                "the network once, or give a folder"
            ) from error
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MissingError(f"{spec} cannot be fetched from the hub ({reason}); check the name") from error
    return Path(folder)
