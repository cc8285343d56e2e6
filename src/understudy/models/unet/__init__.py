"""Stable Diffusion 1.x, 2.x and XL: U-Nets behind the DiffusionModel protocol."""
