"""The studies: each a room with what it measures, and what it makes of that in a report."""
