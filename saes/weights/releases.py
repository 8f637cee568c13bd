"""SAELens' names of dictionaries on the hub: `RELEASE/ID`, such as `gpt2-small-res-jb/blocks.8.hook_resid_pre`.

`saelens_releases.txt.xz` lists the releases of `sae_lens/pretrained_saes.yaml` (its licence lies next to it), 19 kB:

    RELEASE REPOSITORY [REASON]     a release; with a reason, such as a loader of its own, it is refused
     ID [PATH]                      one of its dictionaries, where its path in the repository is not its id

`python -m tools.releases` writes it. SAELens itself is not needed, and the layout of a repository is not guessed.
"""

import lzma
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import NamedTuple

from interp.errors import MismatchError, UnknownNameError

TABLE = Path(__file__).with_name("saelens_releases.txt.xz")


class Release(NamedTuple):
    """One release: its repository, the path of each id, and why it cannot be read (empty where it can)."""

    repository: str
    paths: dict[str, str]
    reason: str


@cache
def releases() -> dict[str, Release]:
    """Return every release by its name."""
    found: dict[str, Release] = {}
    for line in lzma.decompress(TABLE.read_bytes()).decode().splitlines():
        if line.startswith(" "):
            name, _, path = line[1:].partition(" ")
            next(reversed(found.values())).paths[name] = path or name
        else:
            release, repository, *reason = line.split(" ", 2)
            found[release] = Release(repository, {}, "".join(reason))
    return found


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
