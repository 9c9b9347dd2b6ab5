"""Models of transformers, from a folder or a hub: config, files, model."""
