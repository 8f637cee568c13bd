"""The page `/circuit/<name>`: a circuit as a graph, with evidence for each edge."""
