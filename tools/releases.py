"""The table of SAELens' releases that dictionaries open by: `python -m tools.releases`.

It is `pretrained_saes.yaml` of a pinned wheel without scores and links; `saes/weights/importing.py` describes the file.
"""

import lzma
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from interp.artifacts import atomic_file
from saes.weights.importing import TABLE
from tools import run_tool
from tools.sources import Package, fetch
from workbench.terminal import Verb, wrote

SAELENS = Package("pip", "sae-lens", "6.54.12", "a8f533bde5024f067de482fece4fb975b39f341d0cb781ca5afedce1b2e91c31")
READ = (
    None, "dictionary_learning_1", "gemma_2", "gemma_2_transcoder", "gemma_3", "llama_scope", "mwhanna_transcoder",
    "qwen_scope",
)  # fmt: skip
"""SAELens' loaders of layouts that `saes/weights/` reads."""


def table(listed: dict[str, dict[str, Any]]) -> str:
    """Return the lines of the table."""
    lines = []
    for name, release in listed.items():
        lines.append(f"{name} {release['repo_id']} {reason(release)}".rstrip())
        for sae in release["saes"]:
            path = "" if sae["id"] == str(sae["path"]) else f" {sae['path']}"
            lines.append(f" {sae['id']}{path}")
    return "\n".join(lines) + "\n"


def reason(release: dict[str, Any]) -> str:
    """Return why a release cannot be read from its files; empty where it can."""
    loader, changed = release.get("conversion_func"), release.get("config_overrides") or {}
    if loader not in READ:
        return f"by its loader {loader}"
    return "with another normalize_activations than its files say" if "normalize_activations" in changed else ""


@dataclass(frozen=True, kw_only=True)
class Build(Verb):
    """Write the table of SAELens' releases from its wheel, which is fetched when missing."""

    downloads: Path = Path(".")
    """folder of downloads"""

    def run(self) -> None:
        with zipfile.ZipFile(fetch(SAELENS, self.downloads)) as wheel:
            text = table(yaml.safe_load(wheel.read("sae_lens/pretrained_saes.yaml")))
            licence = next(wheel.read(name) for name in wheel.namelist() if name.endswith("/LICENSE"))
        with atomic_file(TABLE) as temporary:
            temporary.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
        TABLE.with_name("saelens_releases.LICENSE").write_bytes(licence)
        wrote(TABLE, f"{len(text.splitlines()):,} lines, {TABLE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    run_tool(Build)
