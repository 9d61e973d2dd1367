"""The command `chargpt`: `main` finds the command, `options` reads those of `train`, `commands` does the work.

`inputs` looks at texts, prompts and folders, and `output` sees to what is printed.
"""
