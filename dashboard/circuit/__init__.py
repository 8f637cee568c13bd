"""The page `/circuit/<name>`: a circuit as a graph, with evidence for each edge.

- `page`     the page: graph, curve, table
- `data`     edges by strength, proposed groups, the export
- `drawing`  the circuit as the browser draws it
- `routes`   addresses that the browser asks: the graph, what is shown of it, groups, the export
- `side`     the right side: the finding, or evidence of the chosen edge or nodes
"""
