"""What a sweep will take, and what of it fits: before anything starts, and without torch."""
