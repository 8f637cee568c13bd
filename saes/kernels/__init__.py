"""The sparse training step: one dense encoder product, everything after it over the active latents only.

state.py      the parameters and Adam moments of a run, one latent per row
step.py       one training step, told in order; picks the backend by device
auxk.py       the loss that revives dead latents
plain.py      the steps in torch operations: any device, any dtype
compiled.py   the same steps in compiled loops: CPU
select.py     compiled selection of the largest latents, per row or over the batch
"""
