"""What stages say while they work, and MLflow, which keeps it."""
