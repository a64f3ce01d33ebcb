"""The stages: each joins pure code of ``gill`` and ``data`` to files, Prefect and MLflow."""
