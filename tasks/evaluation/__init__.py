"""Suites, baselines, metric networks, decision labels, report and sweeps."""
