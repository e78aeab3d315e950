"""Modules that methods build: heads that grow, special fusions, classifiers."""
