"""How tools reach files by granted paths, and programs by granted names."""
