"""Benchmarks: each figure beside a peer's of the same run. `make bench`, or `bench/run.py --only a,b`."""
