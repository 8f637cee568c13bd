"""The page `/feature/<features>/<index>`: a list of features, or one of them."""
