"""The torch engine: Hugging Face decoders, run layer by layer. Start with `engine`."""
