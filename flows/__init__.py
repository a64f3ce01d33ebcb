"""Prefect flows: the DAG and its recipes."""
