"""Files: written whole or not at all, told apart by what they hold, images decoded one way."""
