"""Claims of speed and memory, measured: each module is run by hand and ends with a JSON line."""
