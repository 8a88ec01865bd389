"""What a manifest says, read and checked."""
