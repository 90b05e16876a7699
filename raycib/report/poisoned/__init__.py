"""What methods do where some rows of the task are harmful: by the share of these, and at worst."""
