"""Style-based image generators (StyleGAN2 and 3) as folders, and the conversion of checkpoints.
Knows nothing of drags or projection."""
