"""The MLX engine: mlx-lm's models, run layer by layer. Start with `engine`."""
