"""One file per stage, one public function each; behind them the rooms that they share.

- **Stages**: train, compress, export, run, attribute, measure, compare, why, inspect, reproduce, report, doctor;
  progress (what they tell while they work)
- **Rooms**: setup (a run before it starts), data, hf (models of transformers), compatibility (what goes together),
  loop (training), compression, onnx, comparison, reports
"""
