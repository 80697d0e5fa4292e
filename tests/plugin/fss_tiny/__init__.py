"""A method, a dataset and a backbone that fss_bench knows by entry points alone."""
