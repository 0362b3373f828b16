"""A room that answers: an engine for many askers, and its faces: an HTTP API, a page, a tool for agents."""
