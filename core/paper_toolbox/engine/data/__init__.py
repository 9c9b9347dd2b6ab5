"""Data: which reader a source has, what it reads, split by seed and standardised by its training part.

- **Opening**: open_data, sources, raw, parts, standardize
- **Readers**: arrays, tables, images, text, tokens, parquet, bundled, hub, hub_columns, torchvision_data
- **Checking**: check, check_rows, check_columns, check_words
"""
