"""The data sets of the field that lie in files: one module a set, found by its name.

See `equivox.data.field` for what such a module declares.
"""
