"""What a manifest says, parsed and checked."""
