#!/usr/bin/env bash
# Compare with peers that cannot be installed beside us: each gets an environment of its own, in .oracles/.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ ! -x .oracles/saelens/bin/python ]; then
    python3 -m venv .oracles/saelens
    .oracles/saelens/bin/python -m pip install --quiet --upgrade pip
    .oracles/saelens/bin/python -m pip install --quiet sae-lens==6.54.12 numba
fi
shopt -s nullglob
PYTHONPATH=. .oracles/saelens/bin/python tests/oracles/saelens_loads_our_folder.py workspace/saes/*/
