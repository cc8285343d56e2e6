"""Work of a GPU recorded as CUDA graphs, compared with the work itself, and replayed."""
