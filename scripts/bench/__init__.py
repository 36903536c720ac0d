"""What the benchmarks share: inputs, baselines, limits of the machine, clocks and reports."""
