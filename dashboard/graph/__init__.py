"""The page `/graph`: one attribution graph, read and drawn.

- `page`    the page: scores with their baselines, the form that traces another prompt, and what the browser fills
- `_checks` scores with their baselines, and the agreement with ablations
- `_file`   a graph as one HTML file, with its largest nodes and its tests
- `_data`   a graph as the browser takes it
- `_labels` labels of nodes, and the features tables that describe its latents
- `_routes` addresses that the browser asks: the graph, a latent with its examples, the marks of the visitor
- `named`   its named nodes of largest effect
- `exchange`  graphs to and from files of Neuronpedia and circuit-tracer, with marks and latents
"""
