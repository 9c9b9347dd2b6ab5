"""From a model to a file that ONNX Runtime runs.

- **Export**: trace, graph, staging, half, int8, parity
- **Running**: session, provider, runner, run, nodes, layers
"""
