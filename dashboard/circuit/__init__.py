"""The page `/circuit/<name>`: a circuit as a graph, with evidence for each edge.

- `page`     graph, curve, table, and the finding or the evidence of what is chosen
- `data`     edges by strength, proposed groups, the export
- `drawing`  the circuit as the browser draws it, and the addresses that it asks
"""
