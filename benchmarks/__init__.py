"""Side-by-side measurements. Each writes JSON to ``benchmarks/results/`` and prints a table."""
