"""From manifests to drivers, tools and a running pool."""
