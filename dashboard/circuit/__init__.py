"""The page `/circuit/<name>`: a circuit as a graph, with evidence for each edge.

- `page`    the page: graph, slider, groups
- `figure`  the graph as elements of Cytoscape
- `side`    the right side: the finding, or evidence of the chosen edge, node or group
"""
