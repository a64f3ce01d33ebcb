"""The work of the stage ``download``: sources, fetching, converting, the account of losses."""
