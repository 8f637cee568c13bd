"""Benchmarks against tools that live in environments of their own (`make oracles` makes them): `make bench-peers`."""
