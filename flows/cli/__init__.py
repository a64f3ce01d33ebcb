"""The command ``gill``. Heavy imports lie inside its functions: ``--help`` is there at once."""
