"""One task after another: what is kept and forgotten, figures, claims, and what the order does."""
