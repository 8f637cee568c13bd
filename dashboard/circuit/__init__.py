"""The page `/circuit/<name>`: a circuit as a graph, with evidence for each edge.

- `page`     graph, curve, table, and the finding or the evidence of what is chosen
- `_data`    edges by strength, proposed groups, the export
- `_drawing` the circuit as the browser draws it, and the addresses that it asks
"""
