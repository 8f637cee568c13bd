"""The page `/circuit/<name>`: a circuit as a graph, with evidence for each edge.

- `page`     graph, curve, table, and the finding or the evidence of what is chosen
- `data`     edges by strength, proposed groups, the export
- `drawing`  the circuit as the browser draws it
- `routes`   addresses that the browser asks: the graph, what is shown of it, groups, the export
"""
