"""The torch engine: Hugging Face decoders, run layer by layer. Begin with `engine`."""
