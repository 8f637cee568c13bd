"""What fine-tuning changed, layer by layer, in two checkpoints of one architecture.

- `components`       components of a model by canonical name, as views into its weights; the null (further training,
                     rounding)
- `weights`          which matrices moved, and in how many directions
- `representations`  where the residual stream moved, on text where it should and on text where it should not
- `heads`            which heads attend elsewhere or write something else, by their own weights or by their inputs
- `transplant`       the causal proof: put a component of the tuned model into the base, and measure the behaviour
- `report`           all of it as one value, with a table

Fine-tuning effects on features are measured with a crosscoder, in `saes.evaluation.crosscoder_latents`.
"""
