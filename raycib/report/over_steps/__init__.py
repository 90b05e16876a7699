"""Safety over the steps of training: how long it lasts."""
