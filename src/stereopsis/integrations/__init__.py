"""Bridges to programs that people evaluate with; each is imported by that program, never by this package."""
