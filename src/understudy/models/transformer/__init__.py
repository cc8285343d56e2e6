"""Flow transformers (SD3, FLUX, Qwen-Image, Z-Image) behind the DiffusionModel protocol."""
