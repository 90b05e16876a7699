"""One method a file: its settings, what to know of it, what it needs, and what it changes about
plain LoRA. The menu (`raycib.config.menu`) finds every file here by itself; docs/add_a_method.md.

No file here imports torch but within `build`: the driver and the command line read them. What a
method needs of torch lies in `raycib.objectives` (its loss) or `raycib.hooks` (anything else).
"""
