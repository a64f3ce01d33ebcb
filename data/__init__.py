"""Schemas, artifacts, shards and sources: everything that touches a data file."""
