"""Benchmarks: each figure beside a peer's of the same run. `make bench`, or `bench/run.py --only a,b`.

`make bench ARGS="--peer"` measures pulumi-docker too, which the project does not depend on (peer_plugin.py).
"""
