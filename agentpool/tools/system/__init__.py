"""How tools reach this system: files by their granted paths, programs by their granted names."""
