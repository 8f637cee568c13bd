"""Read the residual stream in terms of next tokens.

- `logit_lens`          every layer's next-token distribution through the final norm and the unembedding
- `lens`                what the two fitted lenses have in common
- `tuned_lens`          a learned affine translator for each layer, as an artefact
- `lens_training`       its training; how far a reading is from the model's output on held-out text
- `jacobian_lens`       the mean derivative of the last residual in each layer's, with means and gains, as an artefact
- `jacobian_fit`        its estimator, and the form in which such lenses are published
- `vocabulary`          the direction of the last residual that raises each token
- `direct_attribution`  exact split of a token's logit over heads, MLPs and the embedding

"""
