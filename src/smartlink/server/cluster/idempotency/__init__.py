"""Which publishing calls have been answered already."""
