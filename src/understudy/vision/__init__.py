"""Networks that look at pictures: the recogniser, CLIP and DINO, perceptual distances, landmarks.
Knows no method."""
