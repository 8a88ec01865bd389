"""Lets tools reach files through granted paths, and programs through granted names."""
