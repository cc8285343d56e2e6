"""StyleGAN3 (Karras et al. 2021) in pure PyTorch."""
