"""Thin routers. `build()` composes them into one application."""
