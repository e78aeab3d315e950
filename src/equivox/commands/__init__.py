"""The commands: a module each, with `add`, which adds its parser, and `run`.

Nothing slow is imported before `run`.
"""
