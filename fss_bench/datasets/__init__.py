"""Built-in datasets: one file each; the file name is the registered name."""
