#!/usr/bin/env bash
# Compare with peers that cannot be installed beside us: each gets an environment of its own, in .oracles/.
#   run.sh            our folders in SAELens, every peer's fresh checkpoints in ours, and circuit-tracer's graphs
#   run.sh --freeze   the same, and rewrite the checkpoints and numbers kept in tests/fixtures/
set -euo pipefail
cd "$(dirname "$0")/../.."
home=${ORACLES:-.oracles}
freeze=${1:-}
environment() { # name, requirements ...
    local name=$1 && shift
    if [ ! -x "$home/$name/bin/python" ]; then
        python3 -m venv "$home/$name"
        "$home/$name/bin/python" -m pip install --quiet --upgrade pip
        "$home/$name/bin/python" -m pip install --quiet "$@"
    fi
}
environment saelens sae-lens==6.54.12 numba
environment sparsify eai-sparsify==1.3.3
environment dictionary_learning dictionary-learning==0.1.0
environment circuit_tracer circuit-tracer==0.5.0
environment llama_cpp llama-cpp-python==0.3.36 gguf==0.19.0 # compiles llama.cpp: five minutes on two cores

"$home/saelens/bin/python" tests/oracles/peer_names.py sae_lens $freeze
"$home/circuit_tracer/bin/python" tests/oracles/peer_names.py circuit_tracer nnsight $freeze

shopt -s nullglob
PYTHONPATH=. "$home/saelens/bin/python" tests/oracles/saelens_loads_our_folder.py $freeze workspace/saes/*/
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$home/saelens/bin/python" tests/oracles/saelens_releases.py "$fresh"
"$home/sparsify/bin/python" tests/oracles/sparsify_checkpoints.py "$fresh"
"$home/dictionary_learning/bin/python" tests/oracles/dictionary_learning_checkpoints.py "$fresh"
.venv/bin/python tests/oracles/documented_layouts.py "$fresh"
.venv/bin/python tests/oracles/compare.py "$fresh"

steered=$(mktemp -d)
trap 'rm -rf "$fresh" "$steered"' EXIT
.venv/bin/python tests/oracles/steered_logits.py "$steered"
"$home/llama_cpp/bin/python" tests/oracles/llama_cpp_logits.py "$steered"

graphs=$(mktemp -d)
trap 'rm -rf "$fresh" "$steered" "$graphs"' EXIT
"$home/circuit_tracer/bin/python" tests/oracles/circuit_tracer_graphs.py "$graphs"
.venv/bin/python tests/oracles/compare_graphs.py "$graphs"
"$home/circuit_tracer/bin/python" tests/oracles/circuit_tracer_graphs.py "$graphs" --read

if [ "$freeze" = --freeze ]; then
    cp -r "$fresh"/. tests/fixtures/
    cp "$graphs"/arithmetic_5.safetensors tests/fixtures/circuit_tracer_graph/arithmetic.safetensors
    cp "$graphs"/graphs/gpt2-jumprelu/json/gpt2-jumprelu.json tests/fixtures/circuit_tracer_graph/graph.json
fi
