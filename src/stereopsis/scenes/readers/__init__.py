"""Readers of capture and dataset layouts; `stereopsis.scenes.formats` picks the right one."""
