"""The local servers: started, stopped, reconciled."""
