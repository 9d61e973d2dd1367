"""The command `chargpt`: `options` and presets, `commands`, and `main`, which reads the words and calls them."""
