"""What fine-tuning changed, layer by layer, in two checkpoints of one architecture.

- `components`       the parts of a model by canonical names, as views into its weights; which pairs may be compared
- `nulls`            what counts as no change: continuations of the same base, or rounding
- `weights`          which matrices moved, and in how many directions
- `representations`  where the residual stream moved, on text where it should and on text where it should not
- `heads`            which heads look elsewhere or write something else, by their own weights or by what reaches them
- `transplant`       the proof: put a part of the tuned model into the base, and see what comes along
- `report`           all of it as one value, with a table

What features changed is asked of a crosscoder, in `saes.model_difference`.
"""
