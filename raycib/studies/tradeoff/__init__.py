"""The Trade-offs paper: gaps, its theorems' bounds, figures and claims."""
