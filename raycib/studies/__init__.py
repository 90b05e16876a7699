"""Questions that a grid answers, each in a room of its own. The core imports none of them."""
