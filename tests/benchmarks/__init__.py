"""Benchmarks: ratios measured in one run. Run by `make bench`, never by the test suite."""
