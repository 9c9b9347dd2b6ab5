"""One file per stage, one public function each; behind them the rooms that they share, by what they are about.

- **Stages**: train, compress, export, run, attribute, measure, compare, inspect, reproduce, doctor, run_report
- **A run before it starts**: methods, models, edited, objective, optimize, devices, session; case, conflicts, fits,
  clashes, traits, why (what goes together); unused, schedule, search_space
- **The loop**: fit, windows, regimen, evaluate, observe, progress, interrupt, autopsy; keep, checkpoint, restore (what
  is on disk); together, shards (several processes)
- **Data**: sources (which reader), data, raw, parts, standardize; arrays, tables, images, text, tokens, parquet,
  bundled, hub_data, hub_columns, torchvision_data; check_data, check_rows, check_columns, check_words
- **Models of others**: libraries, packages, hf_model, hf_config, hf_files
- **Compression**: compress_plan, compress_step, before_after, sizes
- **ONNX**: onnx_trace, onnx_export, onnx_staging, onnx_half, onnx_int8, onnx_parity; onnx_session, onnx_provider,
  onnx_runner, onnx_run, onnx_nodes, onnx_layers
- **Comparison**: comparison, trial, peak_memory, verdicts, compare_report, compare_pictures
- **Reports**: outcome, interval, passages, faithfulness, run_pictures, pictures, drawing
- **The table of pairs**: pairs, covering, rehearsal, tiny, pairs_page
"""
