"""The library of the course: one module a lesson, each written in its lesson's text, none edited here."""

__version__ = "0.1.0"
