"""The command `chargpt`: `main` finds the command, `options` reads those of `train`, `commands` does the work."""
