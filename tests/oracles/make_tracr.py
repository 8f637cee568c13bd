"""Compile two RASP programs with tracr and freeze them as arrays: `tests/fixtures/tracr_<program>.npz`.

    python -m venv /tmp/tracr && /tmp/tracr/bin/pip install tracr-pypi==1.0.0
    /tmp/tracr/bin/python tests/oracles/make_tracr.py

tracr needs jax, which the workbench does not depend on; the arrays are all that the tests read. Each file holds
plain arrays (no pickle): weights per layer in the layout `x @ W`, the unembedding made from the program's output
variable, some inputs, and what the program says they should give (`nan` where it says nothing, at the BOS).
"""

import itertools
from pathlib import Path

import numpy as np
from tracr.compiler import compiling, lib
from tracr.rasp import rasp

FIXTURES = Path(__file__).parent.parent / "fixtures"
MAX_LENGTH = 5


def main() -> None:
    freeze("reverse", lib.make_reverse(rasp.tokens), {1, 2, 3}, "reverse")
    freeze("proportion", lib.make_frac_prevs(rasp.tokens == "x"), {"w", "x", "y", "z"}, "frac_prevs")


def freeze(name: str, program: rasp.SOp, vocab: set, output: str) -> None:
    """Compile one program and write its arrays."""
    model = compiling.compile_rasp_to_model(program, vocab=vocab, max_seq_len=MAX_LENGTH, compiler_bos="BOS")
    labels = list(model.residual_labels)
    names = sorted(vocab, key=str)
    columns = [
        i for i, label in enumerate(labels) if label.split(":")[0].rsplit("_", 1)[0] == output or label == output
    ]
    assert columns, (output, labels)
    arrays = {f"{part}.{kind}": np.asarray(value, np.float32) for part, kind, value in weights(model)}
    d_model = len(labels)
    unembed = np.zeros((d_model, len(columns)), np.float32)
    unembed[columns, range(len(columns))] = 1
    encode = model.input_encoder.encoding_map
    rows = [["BOS", *row] for row in itertools.product(names, repeat=MAX_LENGTH)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:64]]
    expected = np.full((len(rows), MAX_LENGTH + 1), np.nan, np.float32)
    for i, row in enumerate(rows):
        decoded = model.apply(row).decoded[1:]
        wanted = program(row[1:])
        assert all(abs(a - b) < 1e-5 for a, b in zip(decoded, wanted, strict=True)), (decoded, wanted)
        expected[i, 1:] = [names.index(value) if value in names else value for value in wanted]
    arrays |= {
        "W_U": unembed,
        "tokens": np.array([[encode[token] for token in row] for row in rows], np.int64),
        "expected": expected,
        "labels": np.array(labels),
        "attention_heads": np.array([model.model_config.num_heads, model.model_config.key_size]),
    }
    path = FIXTURES / f"tracr_{name}.npz"
    np.savez_compressed(path, **arrays)
    print(
        path.name, "layers", model.model_config.num_layers, "d_model", d_model, "output", [labels[i] for i in columns]
    )


def weights(model):
    """(place, letter, array) in the field's names."""
    p = model.params
    yield "embed", "W_E", p["token_embed"]["embeddings"]
    yield "embed", "W_pos", p["pos_embed"]["embeddings"]
    for layer in range(model.model_config.num_layers):
        attention, mlp = f"transformer/layer_{layer}/attn", f"transformer/layer_{layer}/mlp"
        for letter, part in (("Q", "query"), ("K", "key"), ("V", "value"), ("O", "linear")):
            yield f"L{layer}", f"W_{letter}", p[f"{attention}/{part}"]["w"]
            yield f"L{layer}", f"b_{letter}", p[f"{attention}/{part}"]["b"]
        for letter, part in (("in", "linear_1"), ("out", "linear_2")):
            yield f"L{layer}", f"W_{letter}", p[f"{mlp}/{part}"]["w"]
            yield f"L{layer}", f"b_{letter}", p[f"{mlp}/{part}"]["b"]


if __name__ == "__main__":
    main()
