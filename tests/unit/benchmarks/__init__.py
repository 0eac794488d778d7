"""The benchmarks, as far as they are pure."""
