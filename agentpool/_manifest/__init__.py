"""Manifests: what they contain, parsed and checked."""
