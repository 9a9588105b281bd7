"""The dialect as a Jupyter kernel: `neuroscope kernel install`, then choose NeuroScope in a notebook."""
