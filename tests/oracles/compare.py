"""Do we read the checkpoints below a folder as the peers that made them do? `python tests/oracles/compare.py FOLDER`

Every `probe.safetensors` holds inputs with the peer's features and reconstructions; ours must agree to 1e-5.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from saes.weights.circuit_tracer import load_cross_layer_transcoder, recognises_cross_layer
from saes.weights.read import load_checked


@torch.no_grad()
def main(root: Path) -> None:
    for path in sorted(root.rglob("probe.safetensors")):
        folder, probe = path.parent, load_file(path)
        if recognises_cross_layer(folder):
            dictionary, name = load_cross_layer_transcoder(folder), "circuit_tracer_clt"
        else:
            loaded = load_checked(folder)
            dictionary, name = loaded.sae, loaded.format
        errors = [
            float((ours - theirs).abs().max() / theirs.abs().max())
            for ours, theirs in (
                (dictionary.encode(probe["x"]), probe["feature_acts"]),
                (dictionary(probe["x"]), probe["recons"]),
            )
        ]
        print(f"{folder.relative_to(root)}: {name}, {dictionary!r}, encode {errors[0]:.1e}, recons {errors[1]:.1e}")
        assert max(errors) < 1e-5, errors


if __name__ == "__main__":
    main(Path(sys.argv[1]))
