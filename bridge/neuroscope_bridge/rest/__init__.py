"""The HTTP door: an OpenAI-compatible server that also answers activations, its clients, and the Lens page at `/`."""
