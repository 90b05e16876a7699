"""How the strength of a method acts: on safety, on the task, and on information."""
