"""What the program `raycib` does beside sweeps, one command a file."""
