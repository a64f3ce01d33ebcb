"""The downloader."""
