"""`python -m fss_bench` is `fss-bench`."""

from fss_bench.cli import main

main()
