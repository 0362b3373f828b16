"""Meshes, fused depth, and pictures of both."""
