"""The MLX engine: mlx-lm's models, run layer by layer. Begin with `engine`."""
