"""What runs stages: context, store, execution, pipeline run, worker processes. Knows Prefect."""
